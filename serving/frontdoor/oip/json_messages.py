"""Messages of the protocol over HTTP to tensors and back: JSON, with tensors behind it that are binary.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; binary tensors as in
Triton's extension: the JSON says how many bytes each has, and they follow it in order. What is long is read in turns
with whatever else the event loop has to do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.classes import classes_in
from serving.frontdoor.oip.json_slices import SLICE_BYTES, slices
from serving.frontdoor.oip.rows import Answered, Asked, check_offered
from serving.frontdoor.oip.tensors import BF16, BYTES, Tensor, from_parts, from_raw, from_values, to_raw

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
MAX_BESIDE = 64 << 10
"""Bytes of parameters, or of the outputs asked for: these are read at once."""
_LENGTH_BYTES = 4
_DIGITS = re.compile("[0-9]{1,18}")
_NUMBERS: frozenset[type] = frozenset((int, float, type(None)))


S = TypeVar("S")


class _Input(msgspec.Struct):
    """`data`: a list of elements, or lists of lists of them; null is a number that is missing."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Raw = Raw()
    data: Raw | UnsetType = UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Envelope(msgspec.Struct):
    inputs: list[Raw]
    id: str = ""
    parameters: Raw = Raw()
    outputs: Raw = Raw()


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_INPUT = msgspec.json.Decoder(_Input)
_PARAMETERS = msgspec.json.Decoder(dict[str, Any])
_OUTPUTS = msgspec.json.Decoder(list[_Output])
_DATA = msgspec.json.Decoder(list[Any])


@dataclass(frozen=True, slots=True)
class InferBody:
    """`inputs` in JSON, one by one; `outputs`: names asked for, none for all."""

    inputs: list[Raw]
    id: str
    parameters: dict[str, Any]
    outputs: list[_Output]

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
    envelope = _read(_ENVELOPE, raw[:length])
    parameters, outputs = envelope.parameters, envelope.outputs
    body = InferBody(
        inputs=envelope.inputs,
        id=envelope.id,
        parameters=_beside(_PARAMETERS, "parameters", parameters) if parameters else {},
        outputs=_beside(_OUTPUTS, "outputs", outputs) if outputs else [],
    )
    return body, raw[length:]


def _read(decoder: msgspec.json.Decoder[S], raw: bytes | Raw) -> S:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not an inference request: {error}") from None


def _beside(decoder: msgspec.json.Decoder[S], name: str, raw: Raw) -> S:
    if len(raw) > MAX_BESIDE:
        raise InvalidRequestError(f"{name!r} take {len(raw)} bytes, at most {MAX_BESIDE} are read")
    return _read(decoder, raw)


async def asked_of(model: str, version: str, body: InferBody, binary: bytes, max_rows: int) -> Asked:
    """Raises InvalidRequestError, for more than `max_rows` rows before their elements are read."""
    check_offered([one.parameters for one in body.outputs])
    return Asked(
        model=model,
        version=version,
        id=body.id,
        parameters=body.parameters,
        inputs=await _tensors(body.inputs, binary, max_rows),
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


async def _tensors(inputs: Sequence[Raw], binary: bytes, max_rows: int) -> list[Tensor]:
    tensors = []
    position = taken = 0
    for raw in inputs:
        one = _read(_INPUT, raw)
        if one.shape and one.shape[0] > max_rows:
            raise InvalidRequestError(f"{one.shape[0]} rows in one call, the limit is {max_rows}")
        size = _binary_size(one) if one.parameters else None
        if size is None:
            tensors.append(await _long(one) if len(raw) > SLICE_BYTES else _typed(one, _data_of(one)))
        else:
            tensors.append(from_raw(one.name, one.datatype, one.shape, binary[position : position + size]))
            position += size
        taken += len(raw)
        if taken > SLICE_BYTES:
            await asyncio.sleep(0)
            taken = 0
    if position != len(binary):
        raise InvalidRequestError(f"{len(binary)} binary bytes behind the JSON, the inputs name {position}")
    return tensors


def _binary_size(one: _Input) -> int | None:
    """None where its elements are in JSON."""
    parameters = _beside(_PARAMETERS, "parameters", one.parameters)
    check_offered([parameters])
    size = parameters.get(BINARY_SIZE)
    if size is not None and (not isinstance(size, int) or size < 0):
        raise InvalidRequestError(f"input {one.name!r}: {BINARY_SIZE} is a number of bytes")
    return size


def _data_of(one: _Input) -> list[Any]:
    return _flat(one, _read(_DATA, _json(one)))


def _json(one: _Input) -> Raw:
    if one.datatype in {"FP16", BF16}:
        raise InvalidRequestError(f"input {one.name!r}: {one.datatype} travels as binary data only")
    if isinstance(one.data, UnsetType):
        raise InvalidRequestError(f"input {one.name!r} has neither data nor {BINARY_SIZE}")
    return one.data


def _typed(one: _Input, values: list[Any], shape: Sequence[int] | None = None) -> Tensor:
    """Of the input's shape, if no other is given."""
    if not set(map(type, values)) <= _types(one.datatype):
        raise _not_of_its_type(one)
    return from_values(one.name, one.datatype, one.shape if shape is None else shape, values)


async def _long(one: _Input) -> Tensor:
    """As of data that is read at once."""
    raw, parts = bytes(_json(one)), []
    if not raw.startswith(b"["):
        raise InvalidRequestError(f"the body is not an inference request: data of input {one.name!r} is no list")
    try:
        for values in slices(raw, len(one.shape) + 1):
            parts.append(_typed(one, values, [len(values)]).array)
            await asyncio.sleep(0)
    except (ValueError, RecursionError):
        raise _not_of_its_type(one) from None
    return from_parts(one.name, one.datatype, one.shape, parts)


def _not_of_its_type(one: _Input) -> InvalidRequestError:
    return InvalidRequestError(f"input {one.name!r} has elements that are not {one.datatype}")


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
        if list not in map(type, values):
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
