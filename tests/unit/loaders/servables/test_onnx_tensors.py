"""No tensor outside the model's file escapes, wherever in the model it hides; the onnx package is the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, TrainingInfoProto

from loaders.servables.onnx_tensors import (
    DATA_LOCATION,
    EXTERNAL_DATA,
    MESSAGES,
    MalformedModelError,
    keeps_data_outside,
)


def outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def in_graph(tensor: TensorProto) -> ModelProto:
    return ModelProto(graph=GraphProto(initializer=[tensor]))


def in_attribute(**fields: Any) -> ModelProto:
    model = ModelProto()
    model.graph.node.add(op_type="Constant").attribute.append(AttributeProto(name="value", **fields))
    return model


def in_function(tensor: TensorProto) -> ModelProto:
    model = ModelProto()
    model.functions.add().node.add().attribute.append(AttributeProto(t=tensor))
    return model


PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": in_graph,
    "sparse": lambda t: ModelProto(graph=GraphProto(sparse_initializer=[SparseTensorProto(values=t)])),
    "attribute": lambda t: in_attribute(t=t),
    "attributes": lambda t: in_attribute(tensors=[t]),
    "sparse attribute": lambda t: in_attribute(sparse_tensor=SparseTensorProto(indices=t)),
    "branch": lambda t: in_attribute(g=GraphProto(initializer=[t])),
    "branch of a branch": lambda t: in_attribute(graphs=[in_attribute(g=GraphProto(initializer=[t])).graph]),
    "function": in_function,
    "training": lambda t: ModelProto(training_info=[TrainingInfoProto(initialization=GraphProto(initializer=[t]))]),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_outside_is_found_wherever_it_is(place: str) -> None:
    assert keeps_data_outside(PLACES[place](outside()).SerializeToString())
    assert not keeps_data_outside(PLACES[place](TensorProto(float_data=[1.0], dims=[1])).SerializeToString())


def test_either_mark_of_an_outside_tensor_is_enough() -> None:
    only_location, only_entries = TensorProto(data_location=TensorProto.EXTERNAL), outside()
    only_entries.ClearField("data_location")
    assert keeps_data_outside(in_graph(only_location).SerializeToString())
    assert keeps_data_outside(in_graph(only_entries).SerializeToString())


def test_a_second_copy_of_the_graph_does_not_hide_the_first() -> None:
    """Parsers merge what stands twice."""
    assert keeps_data_outside(in_graph(outside()).SerializeToString() + in_graph(TensorProto()).SerializeToString())


def test_the_walk_follows_every_way_to_a_tensor() -> None:
    """Compared with onnx.proto, so that a field added there is noticed here."""
    assert _ways(ModelProto.DESCRIPTOR) == {kind: dict(fields) for kind, fields in MESSAGES.items()}
    numbers = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
    assert (numbers["external_data"], numbers["data_location"]) == (EXTERNAL_DATA, DATA_LOCATION)


def _ways(root: Descriptor) -> dict[str, dict[int, str]]:
    """Per message below `root` from which a TensorProto can be reached: the fields that lead there."""
    messages: dict[str, Descriptor] = {}
    waiting = [root]
    while waiting:
        message = waiting.pop()
        if message.name not in messages:
            messages[message.name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    leading = {"TensorProto"}
    while True:
        ways = {
            name: {f.number: f.message_type.name for f in message.fields if _leads(f, leading)}
            for name, message in messages.items()
        }
        grown = leading | {name for name, fields in ways.items() if fields}
        if grown == leading:
            return {name: ways[name] for name in leading}
        leading = grown


def _leads(field: Any, leading: set[str]) -> bool:
    return field.message_type is not None and field.message_type.name in leading


@given(st.data())
def test_what_a_parser_takes_for_an_outside_tensor_is_found(data: st.DataObject) -> None:
    """Damage may turn the model into another one, or into none; it never makes the two readers disagree."""
    raw = bytearray(PLACES[data.draw(st.sampled_from(sorted(PLACES)))](outside()).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = ModelProto.FromString(bytes(raw))
    except DecodeError:
        return
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(parsed)):
        with suppress(MalformedModelError):
            assert keeps_data_outside(bytes(raw))


def _tensors(message: Message) -> Iterator[TensorProto]:
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _tensors(inner)


@pytest.mark.parametrize("raw", [b"\x3a", b"\x3a\x05ab", b"\x0b", b"\x39ab", b"\xff" * 12, b"\x82\x80\x80\x80\x10\x00"])
def test_what_is_no_message_is_said_so(raw: bytes) -> None:
    with pytest.raises(MalformedModelError):
        keeps_data_outside(raw)
