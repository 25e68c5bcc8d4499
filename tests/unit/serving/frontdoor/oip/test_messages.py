"""Contents of gRPC messages as tensors, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.messages import asked, raw_reply, typed_reply
from serving.frontdoor.oip.rows import Answered, NotOfferedError
from serving.frontdoor.oip.tensors import BF16, BYTES, DTYPES, Tensor
from serving.transport import Code
from tessera.compat import open_inference_pb2 as wire

CONTENTS: dict[str, tuple[str, list[Any]]] = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, -1e38]),
    "FP64": ("fp64_contents", [0.1, -1e300]),
    BYTES: ("bytes_contents", [b"\xff\x00", b""]),
}
"""The field of each datatype, and its extremes."""
RAW_ALONE = ("FP16", BF16)


def request(datatype: str, shape: list[int], **contents: Any) -> wire.ModelInferRequest:
    message = wire.ModelInferRequest()
    message.inputs.add(name="t", datatype=datatype, shape=shape, contents=wire.InferTensorContents(**contents))
    return message


def raw_of(datatype: str, values: list[Any]) -> bytes:
    if datatype == BYTES:
        return b"".join(len(one).to_bytes(4, "little") + one for one in values)
    return np.array(values, DTYPES[datatype]).tobytes()


def test_every_datatype_is_tried() -> None:
    assert {*CONTENTS, *RAW_ALONE} == {*DTYPES, BF16, BYTES}


@pytest.mark.parametrize("datatype", list(CONTENTS))
def test_typed_and_raw_contents_are_the_same_tensor(datatype: str) -> None:
    field, values = CONTENTS[datatype]
    raw = wire.ModelInferRequest(raw_input_contents=[raw_of(datatype, values)])
    raw.inputs.add(name="t", datatype=datatype, shape=[2, 1])
    for message in (request(datatype, [2, 1], **{field: values}), raw):
        [tensor] = asked(message).inputs
        assert (tensor.datatype, tensor.array.shape) == (datatype, (2, 1))
        same = np.array(values, dtype=tensor.array.dtype)
        assert tensor.array.ravel().tolist() == same.tolist()


@pytest.mark.parametrize("datatype", list(CONTENTS))
def test_replies_carry_every_datatype_in_its_field_or_raw(datatype: str) -> None:
    field, values = CONTENTS[datatype]
    dtype = DTYPES.get(datatype, np.dtype(np.object_))
    answered = Answered("m", "1", [Tensor("t", datatype, np.array([values], dtype))])
    typed = wire.ModelInferResponse.FromString(typed_reply(answered))
    assert list(typed.outputs[0].shape) == [1, 2]
    given = list(getattr(typed.outputs[0].contents, field))
    assert given == np.array(values, dtype).tolist()
    assert not typed.raw_output_contents
    raw = wire.ModelInferResponse.FromString(raw_reply(answered))
    assert list(raw.raw_output_contents) == [raw_of(datatype, values)]
    assert not raw.outputs[0].HasField("contents")


@pytest.mark.parametrize("datatype", list(CONTENTS))
def test_contents_in_another_field_do_not_count(datatype: str) -> None:
    field, values = next(other for other in CONTENTS.values() if other[0] != CONTENTS[datatype][0])
    with pytest.raises(InvalidRequestError, match="'t' has 0 elements"):
        asked(request(datatype, [2], **{field: values}))


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("INT8", "int_contents", 128), ("UINT8", "uint_contents", 256), ("INT16", "int_contents", -(2**15) - 1)],
)
def test_numbers_beyond_a_narrow_datatype_are_refused(datatype: str, field: str, value: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"not {datatype}"):
        asked(request(datatype, [1], **{field: [value]}))


@pytest.mark.parametrize("datatype", RAW_ALONE)
def test_halves_of_floats_travel_raw_alone(datatype: str) -> None:
    with pytest.raises(InvalidRequestError, match="raw_input_contents only"):
        asked(request(datatype, [1], fp32_contents=[1.0]))


def test_raw_and_typed_contents_do_not_mix() -> None:
    mixed = request("FP32", [1], fp32_contents=[1.0])
    mixed.raw_input_contents.append(bytes(4))
    with pytest.raises(InvalidRequestError, match="although"):
        asked(mixed)
    fewer = wire.ModelInferRequest(raw_input_contents=[bytes(4)])
    for name in "ab":
        fewer.inputs.add(name=name, datatype="FP32", shape=[1])
    with pytest.raises(InvalidRequestError, match="1 raw contents for 2 inputs"):
        asked(fewer)


@pytest.mark.parametrize("name", ["shared_memory_region"])
def test_what_is_not_offered_is_not_left_out_in_silence(name: str) -> None:
    by_input = request("FP32", [1], fp32_contents=[1.0])
    by_input.inputs[0].parameters[name].string_param = "r"
    by_output = request("FP32", [1], fp32_contents=[1.0])
    by_output.outputs.add(name="score").parameters[name].int64_param = 2
    for message in (by_input, by_output):
        with pytest.raises(NotOfferedError, match="is not supported") as caught:
            asked(message)
        assert caught.value.code is Code.UNIMPLEMENTED


def test_an_output_may_be_asked_for_by_its_classes() -> None:
    message = request("FP32", [1], fp32_contents=[1.0])
    message.outputs.add(name="score").parameters["classification"].int64_param = 3
    message.outputs.add(name="label")
    assert (asked(message).outputs, asked(message).classes) == (("score", "label"), (3, 0))
    message.outputs[0].parameters["classification"].string_param = "3"
    with pytest.raises(InvalidRequestError, match="number of classes"):
        asked(message)
