"""Format `onnx`: any ONNX model with declared tensors, as a local model of one party.

File: `model.onnx`, with all its tensors inside: a model that keeps some in other files does not load. Operators are
those of stock onnxruntime; no custom-operator library is ever registered. Preprocessing belongs into the graph.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from loaders.loader import Loader, LoadError, Servable
from loaders.servables.onnx import OnnxServable, dtype_of
from loaders.servables.onnx_tensors import MalformedModelError, keeps_data_outside
from loaders.signature import FeatureError, Missing, Signature, TensorSpec

MODEL = "model.onnx"
_CHUNK = 1 << 20


class OnnxLoader(Loader):
    """One onnxruntime session with one thread: requests run side by side, not each on many cores."""

    format: ClassVar[str] = "onnx"

    def estimate(self) -> int:
        return 2 * sum(entry.bytes for entry in self.artifact.files.values())

    def load(self) -> Servable:
        manifest = self.artifact.manifest
        self._refuse_preprocessing()
        with self._model() as model:
            session = self._session(model)
        _match("input", manifest.inputs, session.get_inputs())
        _match("output", manifest.outputs, session.get_outputs())
        if not manifest.outputs or manifest.outputs[0].is_text:
            raise LoadError("the first output must be declared and hold numbers: it is the score")
        try:
            return OnnxServable(Signature(manifest.inputs, manifest.outputs), session)
        except FeatureError as error:
            raise LoadError(f"inputs: {error}") from None

    def _refuse_preprocessing(self) -> None:
        """Nothing here would run it, and scores without it would be wrong in silence."""
        manifest = self.artifact.manifest
        if manifest.preprocess:
            raise LoadError("format 'onnx' takes no preprocess steps: put them into the model's graph")
        for spec in manifest.inputs:
            if spec.missing is Missing.IMPUTE:
                raise LoadError(f"input {spec.name!r}: format 'onnx' imputes nothing; declare missing error or native")

    @contextlib.contextmanager
    def _model(self) -> Iterator[str | bytes]:
        """As onnxruntime takes it, after a look at all of it."""
        if MODEL not in self.artifact.files:
            raise LoadError(f"{MODEL} is not among the artifact's files")
        with _private_copy(self.artifact.path / MODEL) as (content, model):
            try:
                if keeps_data_outside(content):
                    raise LoadError(f"{MODEL} keeps tensors in other files: save it again with all tensors inside")
            except MalformedModelError as error:
                raise LoadError(f"{MODEL} is not an ONNX model: {error}") from None
            yield model

    def _session(self, model: str | bytes) -> Any:
        try:
            import onnxruntime  # noqa: PLC0415 - only parties with ONNX models pay for it
        except ImportError:
            raise LoadError("format 'onnx' needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        # Not onnxruntime's own format, whose tensors were not looked through.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime raises a class of its own for every status, and RuntimeError for the rest.
            raise LoadError(f"{MODEL}: onnxruntime refuses it: {_first_line(error)}") from error


@contextlib.contextmanager
def _private_copy(path: Path) -> Iterator[tuple[mmap.mmap | bytes, str | bytes]]:
    """The content, to look through, and what onnxruntime reads it from: a file in memory, which nobody else can change
    and beside which there are no others. Neither may be used after the block.

    Bytes onnxruntime would copy while it holds the interpreter, 0.1 s for 200 MB, in which no request is answered; a
    file it reads beside everything else. To free so many bytes holds the interpreter too, to unmap a file does not.
    """
    if sys.platform != "linux":
        content = path.read_bytes()
        yield content, content
        return
    with path.open("rb") as source, os.fdopen(os.memfd_create(MODEL), "w+b") as copy:
        shutil.copyfileobj(source, copy, _CHUNK)
        copy.flush()
        content = mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ) if copy.tell() else b""
        yield content, f"/proc/self/fd/{copy.fileno()}"


def _match(kind: str, declared: tuple[TensorSpec, ...], actual: list[Any]) -> None:
    """Every declared tensor is there with its type and rank; every input of the model is declared."""
    tensors = {tensor.name: tensor for tensor in actual}
    if kind == "input" and tensors.keys() != {spec.name for spec in declared}:
        raise LoadError(f"{MODEL} takes {sorted(tensors)}, the manifest declares {sorted(s.name for s in declared)}")
    for spec in declared:
        tensor = tensors.get(spec.name)
        if tensor is None:
            raise LoadError(f"{MODEL} has no {kind} {spec.name!r}; it has {', '.join(map(repr, tensors))}")
        dtype = dtype_of(tensor.type)
        if dtype is None:
            raise LoadError(
                f"{kind} {spec.name!r} is {tensor.type}, not a tensor; export classifiers with zipmap=False"
            )
        if dtype != spec.dtype:
            raise LoadError(f"{kind} {spec.name!r} is {dtype} in {MODEL} and {spec.dtype} in the manifest")
        if not _fits(spec.shape, tensor.shape):
            raise LoadError(f"{kind} {spec.name!r} has shape {tensor.shape} in {MODEL}, {spec.shape} in the manifest")


def _fits(declared: tuple[int, ...], actual: list[Any]) -> bool:
    """Same rank, and the same sizes where the model fixes them. A fixed number of rows would not take batches."""
    if len(declared) != len(actual) or (actual and isinstance(actual[0], int)):
        return False
    return all(not isinstance(size, int) or size == own for own, size in zip(declared[1:], actual[1:], strict=True))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
