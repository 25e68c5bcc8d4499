"""Runs an ONNX session on batches: slices of the feature matrices become its input tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loaders.loader import Outputs, Servable
from loaders.signature import Batch, FeatureError, Signature, TensorSpec

_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def dtype_of(onnx_type: str) -> str | None:
    """The manifest's name of an onnxruntime type, None for what is no tensor of scalars."""
    return _DTYPES.get(onnx_type)


@dataclass(frozen=True, slots=True)
class _Input:
    """Columns `start` to `stop` of the number or text matrix, as a tensor of `shape` and `dtype`."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None


class OnnxServable(Servable):
    """`session` is an onnxruntime InferenceSession, which is thread-safe."""

    def __init__(self, signature: Signature, session: Any) -> None:
        self.signature = signature
        self._session = session
        self._inputs = _placed(signature.inputs)
        self._names = [spec.name for spec in signature.outputs]
        self._width = signature.outputs[0].width

    def predict(self, batch: Batch) -> Outputs:
        feeds = {one.name: _tensor(one, batch) for one in self._inputs}
        try:
            answers = self._session.run(self._names, feeds)
        except Exception as error:
            # The inputs have the declared types and shapes; what is left is the model refusing their values.
            raise FeatureError(f"the model refuses the input: {str(error).splitlines()[0]}") from error
        outputs = dict(zip(self._names, answers, strict=True))
        score = self._names[0]
        values = np.asarray(outputs[score], dtype=np.float64)
        if values.shape[0] != batch.rows or values.size != batch.rows * self._width:
            raise ValueError(f"output {score!r} has shape {values.shape} for {batch.rows} rows of width {self._width}")
        for name in self._names[1:]:
            if outputs[name].shape[:1] != (batch.rows,):
                raise ValueError(f"output {name!r} has shape {outputs[name].shape} for {batch.rows} rows")
        outputs[score] = values.reshape(batch.rows, self._width)
        return outputs


def _placed(specs: Sequence[TensorSpec]) -> list[_Input]:
    starts = {True: 0, False: 0}
    placed = []
    for spec in specs:
        start = starts[spec.is_text]
        starts[spec.is_text] = stop = start + spec.width
        dtype = None if spec.is_text else np.dtype(spec.dtype)
        placed.append(_Input(spec.name, start, stop, spec.shape, dtype))
    return placed


def _tensor(one: _Input, batch: Batch) -> Any:
    if one.dtype is None:
        return batch.texts[:, one.start : one.stop].reshape(one.shape)
    values = batch.numbers[:, one.start : one.stop]
    try:
        with np.errstate(over="raise", invalid="ignore"):
            tensor = values.astype(one.dtype)
    except FloatingPointError:
        raise FeatureError(f"input {one.name!r} has a value too large for {one.dtype}") from None
    if one.dtype.kind in "iub" and not (tensor == values).all():
        raise FeatureError(f"input {one.name!r} takes whole numbers within the range of {one.dtype}")
    return tensor.reshape(one.shape)
