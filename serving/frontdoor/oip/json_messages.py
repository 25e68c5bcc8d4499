"""Messages of the protocol over HTTP to tensors and back: JSON, with tensors behind it that are binary.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; binary tensors as in
Triton's extension: the JSON says how many bytes each has, and they follow it in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.classes import classes_in
from serving.frontdoor.oip.rows import Answered, Asked, check_offered
from serving.frontdoor.oip.tensors import BF16, BYTES, Tensor, from_raw, from_values, to_raw

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_LENGTH_BYTES = 4
_DIGITS = re.compile("[0-9]{1,18}")
_NUMBERS: frozenset[type] = frozenset((int, float, type(None)))


class _Input(msgspec.Struct):
    """`data`: elements, or lists of lists of them; null is a number that is missing."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | UnsetType = UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class InferBody(msgspec.Struct):
    """`outputs`: names asked for, none for all."""

    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []

    def binary_outputs(self) -> frozenset[str] | None:
        """Names of the outputs that are to be binary; None for all. What an output says counts before what the request
        says of all."""
        every = bool(self.parameters.get(ALL_BINARY))
        if every and not self.outputs:
            return None
        return frozenset(one.name for one in self.outputs if one.parameters.get(BINARY, every))


def body_parts(raw: bytes, header_length: str | None) -> tuple[InferBody, bytes]:
    """The JSON, and the binary tensors behind it. Raises InvalidRequestError."""
    if header_length is not None and not _DIGITS.fullmatch(header_length):
        raise InvalidRequestError("Inference-Header-Content-Length is a number of bytes")
    length = len(raw) if header_length is None else int(header_length)
    if length > len(raw):
        raise InvalidRequestError(f"Inference-Header-Content-Length says {length} bytes, the body has {len(raw)}")
    try:
        return msgspec.json.decode(raw[:length], type=InferBody), raw[length:]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not an inference request: {error}") from None


def asked_of(model: str, version: str, body: InferBody, binary: bytes) -> Asked:
    check_offered([one.parameters for one in body.inputs] + [one.parameters for one in body.outputs])
    return Asked(
        model=model,
        version=version,
        id=body.id,
        parameters=body.parameters,
        inputs=_tensors(body.inputs, binary),
        outputs=tuple(one.name for one in body.outputs),
        classes=tuple(classes_in(one.parameters) for one in body.outputs),
    )


def encoded(answered: Answered, binary: frozenset[str] | None) -> bytes:
    """The reply without its id: the length of the JSON, the JSON, the binary tensors."""
    outputs: list[Mapping[str, Any]] = []
    behind: list[bytes] = []
    for tensor in answered.outputs:
        shown: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.array.shape}
        if binary is None or tensor.name in binary:
            behind.append(to_raw(tensor))
            shown["parameters"] = {BINARY_SIZE: len(behind[-1])}
        else:
            shown["data"] = _values(tensor)
        outputs.append(shown)
    text = msgspec.json.encode(
        {
            "model_name": answered.model,
            "model_version": answered.version,
            "parameters": answered.parameters,
            "outputs": outputs,
        }
    )
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "big"), text, *behind))


def with_id(reply: bytes, id_: str) -> tuple[bytes, int | None]:
    """What goes out, and the length of its JSON when something is behind it."""
    end = _LENGTH_BYTES + int.from_bytes(reply[:_LENGTH_BYTES], "big")
    text, behind = reply[_LENGTH_BYTES:end], reply[end:]
    if id_:
        text = b'{"id":' + msgspec.json.encode(id_) + b"," + text[1:]
    return text + behind, len(text) if behind else None


def _tensors(inputs: Sequence[_Input], binary: bytes) -> list[Tensor]:
    tensors = []
    position = 0
    for one in inputs:
        size = one.parameters.get(BINARY_SIZE)
        if size is None:
            tensors.append(_typed(one))
            continue
        if not isinstance(size, int) or size < 0:
            raise InvalidRequestError(f"input {one.name!r}: {BINARY_SIZE} is a number of bytes")
        tensors.append(from_raw(one.name, one.datatype, one.shape, binary[position : position + size]))
        position += size
    if position != len(binary):
        raise InvalidRequestError(f"{len(binary)} binary bytes behind the JSON, the inputs name {position}")
    return tensors


def _typed(one: _Input) -> Tensor:
    if one.datatype in {"FP16", BF16}:
        raise InvalidRequestError(f"input {one.name!r}: {one.datatype} travels as binary data only")
    if isinstance(one.data, UnsetType):
        raise InvalidRequestError(f"input {one.name!r} has neither data nor {BINARY_SIZE}")
    values = _flat(one, one.data)
    if not set(map(type, values)) <= _types(one.datatype):
        raise InvalidRequestError(f"input {one.name!r} has elements that are not {one.datatype}")
    return from_values(one.name, one.datatype, one.shape, values)


def _types(datatype: str) -> frozenset[type]:
    """What elements may be in JSON."""
    if datatype == BYTES:
        return frozenset((str,))
    if datatype == "BOOL":
        return frozenset((bool,))
    return _NUMBERS if datatype.startswith("FP") else frozenset((int,))


def _flat(one: _Input, values: list[Any]) -> list[Any]:
    """Elements of a list, or of lists of lists as deep as the shape, in row-major order."""
    for _ in one.shape:
        if not any(isinstance(value, list) for value in values):
            break
        values = [value for part in values for value in (part if isinstance(part, list) else (part,))]
    return values


def _values(tensor: Tensor) -> list[Any]:
    flat = tensor.array.ravel().tolist()
    if tensor.datatype == BYTES:
        return [one.decode() for one in flat]
    if tensor.datatype == "BOOL":
        return [bool(one) for one in flat]
    if not tensor.datatype.startswith("FP"):
        return [int(one) for one in flat]
    values: list[Any] = flat
    return values
