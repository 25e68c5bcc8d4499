"""Format `onnx`: any ONNX model with declared tensors, as a local model of one party.

File: `model.onnx`. The session reads it from memory, so tensors kept outside the file are found nowhere: keep them
inside. No custom-operator library is ever registered, so a model that needs one does not load.
"""

from __future__ import annotations

from typing import Any, ClassVar

from loaders.loader import Loader, LoadError, Servable
from loaders.servables.onnx import OnnxServable, dtype_of
from loaders.signature import FeatureError, Signature, TensorSpec

MODEL = "model.onnx"


class OnnxLoader(Loader):
    """One onnxruntime session with one thread: requests run side by side, not each on many cores."""

    format: ClassVar[str] = "onnx"

    def estimate(self) -> int:
        return 2 * sum(entry.bytes for entry in self.artifact.files.values())

    def load(self) -> Servable:
        manifest = self.artifact.manifest
        session = self._session()
        _match("input", manifest.inputs, session.get_inputs())
        _match("output", manifest.outputs, session.get_outputs())
        try:
            return OnnxServable(Signature(manifest.inputs, manifest.outputs), session)
        except FeatureError as error:
            raise LoadError(f"inputs: {error}") from None

    def _session(self) -> Any:
        try:
            import onnxruntime  # noqa: PLC0415 - only parties with ONNX models pay for it
        except ImportError:
            raise LoadError("format 'onnx' needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        if MODEL not in self.artifact.files:
            raise LoadError(f"{MODEL} is not among the artifact's files")
        raw = (self.artifact.path / MODEL).read_bytes()
        try:
            return onnxruntime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime raises a class of its own for every status, and RuntimeError for the rest.
            raise LoadError(f"{MODEL}: onnxruntime refuses it: {_first_line(error)}") from error


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
