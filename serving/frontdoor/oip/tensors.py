"""Tensors of the protocol as numpy arrays: datatypes, raw bytes, lists of values.

Raw: row-major, little-endian; BOOL one byte; BYTES each with a 4-byte little-endian length before it; BF16 the upper
half of a float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError

Array = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
BF16, BYTES = "BF16", "BYTES"
_BY_NUMPY = {dtype.name: name for name, dtype in DTYPES.items()} | {"string": BYTES}


@dataclass(frozen=True, slots=True)
class Tensor:
    """`array` holds numbers of `datatype`, or objects of type bytes for BYTES."""

    name: str
    datatype: str
    array: Array


def datatype_of(dtype: str) -> str:
    """Of a manifest's dtype: a numpy name or `string`."""
    return _BY_NUMPY[dtype]


def sized(name: str, shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has."""
    if not shape or min(shape) < 0:
        raise InvalidRequestError(f"input {name!r} has shape {list(shape)}: sizes from 0, at least one")
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """Raises InvalidRequestError naming the tensor."""
    count = sized(name, shape)
    if datatype == BYTES:
        return Tensor(name, BYTES, _shaped(name, _objects(_split(name, raw, count)), shape))
    dtype = np.dtype("<u2") if datatype == BF16 else _dtype(name, datatype)
    if len(raw) != count * dtype.itemsize:
        raise InvalidRequestError(
            f"input {name!r} has {len(raw)} bytes, {datatype} of shape {list(shape)} takes {count * dtype.itemsize}"
        )
    flat = np.frombuffer(raw, dtype)
    if datatype == BF16:
        flat = (flat.astype("<u4") << 16).view("<f4")
    elif datatype == "BOOL":
        flat = np.frombuffer(raw, "u1") != 0
    return Tensor(name, datatype, _shaped(name, flat, shape))


def from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
    """From elements in row-major order. Raises InvalidRequestError naming the tensor."""
    dtype = None if datatype == BYTES else _dtype(name, datatype)
    count = sized(name, shape)
    if len(values) != count:
        raise InvalidRequestError(_wrong_count(name, len(values), shape))
    if dtype is None:
        return Tensor(name, BYTES, _shaped(name, _objects([_as_bytes(value) for value in values]), shape))
    try:
        array = _array(values, dtype)
    except (ValueError, TypeError, OverflowError, FloatingPointError):
        raise InvalidRequestError(f"input {name!r} has elements that are not {datatype}") from None
    return Tensor(name, datatype, _shaped(name, array, shape))


def _array(values: Sequence[Any], dtype: np.dtype[Any]) -> Array:
    """Of narrow floats alone a number that is too large is no error by itself."""
    if dtype.kind != "f" or dtype.itemsize == 8:
        return np.array(values, dtype)
    with np.errstate(over="raise"):
        return np.array(values, dtype)


def from_parts(name: str, datatype: str, shape: Sequence[int], parts: Sequence[Array]) -> Tensor:
    """From flat arrays, one behind the other. Raises InvalidRequestError naming the tensor."""
    flat = np.concatenate(parts)
    if len(flat) != sized(name, shape):
        raise InvalidRequestError(_wrong_count(name, len(flat), shape))
    return Tensor(name, datatype, _shaped(name, flat, shape))


def to_raw(tensor: Tensor) -> bytes:
    if tensor.datatype == BYTES:
        return b"".join(len(one).to_bytes(4, "little") + one for one in tensor.array.ravel().tolist())
    return tensor.array.astype(_dtype(tensor.name, tensor.datatype), copy=False).tobytes()


def texts(name: str, array: Array) -> list[str]:
    """BYTES elements as text. Raises InvalidRequestError."""
    try:
        return [one.decode() for one in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise InvalidRequestError(f"input {name!r} has bytes that are not UTF-8") from None


def of_texts(name: str, values: Sequence[str]) -> Tensor:
    """One column of texts."""
    return Tensor(name, BYTES, _objects([value.encode() for value in values])[:, None])


def as_bytes(array: Array) -> Array:
    """Of texts, the elements of a BYTES tensor."""
    return _objects([_as_bytes(value) for value in array.ravel().tolist()]).reshape(array.shape)


def _dtype(name: str, datatype: str) -> np.dtype[Any]:
    try:
        return DTYPES[datatype]
    except KeyError:
        raise InvalidRequestError(
            f"tensor {name!r} has datatype {datatype!r}; known: {', '.join((*DTYPES, BF16, BYTES))}"
        ) from None


def _wrong_count(name: str, count: int, shape: Sequence[int]) -> str:
    return f"input {name!r} has {count} elements, shape {list(shape)} takes {math.prod(shape)}"


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _shaped(name: str, array: Array, shape: Sequence[int]) -> Array:
    """Shapes of no elements may still be none that an array can have."""
    try:
        return array.reshape(shape)
    except ValueError:
        raise InvalidRequestError(f"input {name!r} has {len(shape)} dimensions or sizes that no array has") from None


def _objects(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def _split(name: str, raw: bytes, count: int) -> list[bytes]:
    elements: list[bytes] = []
    position = 0
    while position + 4 <= len(raw) and len(elements) < count:
        end = position + 4 + int.from_bytes(raw[position : position + 4], "little")
        elements.append(raw[position + 4 : end])
        position = end
    if position != len(raw) or len(elements) != count:
        raise InvalidRequestError(f"input {name!r}: its raw bytes are not {count} elements with their lengths")
    return elements
