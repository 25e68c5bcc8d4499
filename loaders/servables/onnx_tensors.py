"""Finds tensors that an ONNX model keeps outside its own file, without the onnx package.

onnxruntime looks for such files beside the model, or in the working directory of the process when it reads one from
memory, so a model could take in bytes that no digest covers. The walk follows every field through which a model can
hold a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from mmap import mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_TAG = 1 << 32

MESSAGES: Mapping[str, Mapping[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
"""Field numbers of onnx.proto: message -> field -> message, as far as they lead to tensors."""

EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of TensorProto."""


class MalformedModelError(ValueError):
    """The bytes are no serialised model."""


def keeps_data_outside(model: bytes | mmap) -> bool:
    """Whether any tensor of the serialised ModelProto names a file. Raises MalformedModelError."""
    waiting = [("ModelProto", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        for field, value in _fields(message):
            if kind == "TensorProto" and _is_external(field, value):
                return True
            inner = MESSAGES[kind].get(field)
            if inner is not None and isinstance(value, memoryview):
                waiting.append((inner, value))
    return False


def _is_external(field: int, value: int | memoryview) -> bool:
    return field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers with numbers or bytes; fixed-size numbers are left out."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag >= MAX_TAG:
            raise MalformedModelError("a field number is too large")
        kind = tag & 7
        if kind == VARINT:
            number, position = _varint(message, position)
            yield tag >> 3, number
            continue
        start, position = _extent(message, position, kind)
        if position > len(message):
            raise MalformedModelError("it ends in the middle of a field")
        if kind == BYTES:
            yield tag >> 3, message[start:position]


def _extent(message: memoryview, position: int, kind: int) -> tuple[int, int]:
    """Where the value of a field that is no varint starts and ends."""
    if kind == BYTES:
        length, start = _varint(message, position)
        return start, start + length
    if kind in {FIXED64, FIXED32}:
        return position, position + (8 if kind == FIXED64 else 4)
    raise MalformedModelError(f"wire type {kind} is not used by ONNX")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedModelError("it ends in the middle of a number")
