"""Requests and replies of the HTTP form."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.json_messages import MAX_BESIDE, asked_of, body_parts, encoded, with_id
from serving.frontdoor.oip.json_slices import SLICE_BYTES
from serving.frontdoor.oip.rows import Answered, Asked, NotOfferedError
from serving.frontdoor.oip.tensors import BYTES, Tensor


def asked(raw: bytes, header_length: str | None = None) -> Asked:
    return asyncio.run(asked_of("m", "", *body_parts(raw, header_length), max_rows=2**62))


def read(raw: bytes, header_length: str | None = None) -> Tensor:
    [tensor] = asked(raw, header_length).inputs
    return tensor


def body(datatype: str, data: Any, shape: list[int] | None = None, **fields: Any) -> bytes:
    one = {"name": "x", "datatype": datatype, "shape": shape or [len(data)], "data": data, **fields}
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT32", [1, -2]),
        ("UINT64", [2**64 - 1, 0]),
        ("FP64", [1, 2.5]),
        ("FP32", [0.5, -1]),
        ("BOOL", [True, False]),
        ("BYTES", ["a", "é"]),
    ],
)
def test_elements_are_what_their_datatype_says(datatype: str, data: list[Any]) -> None:
    values = read(body(datatype, data)).array.tolist()
    assert [one.decode() if isinstance(one, bytes) else one for one in values] == data
    nested = read(body(datatype, [[data], [data]], [2, 1, 2]))
    assert (nested.array.shape, nested.array[1, 0].tolist()) == ((2, 1, 2), values)


def test_null_is_a_number_that_is_missing() -> None:
    values = read(body("FP64", [None, 1.0])).array.tolist()
    assert (math.isnan(values[0]), values[1]) == (True, 1.0)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (body("INT32", [1.5]), "not INT32"),
        (body("INT32", [True]), "not INT32"),
        (body("INT32", [None]), "not INT32"),
        (body("INT8", [300]), "not INT8"),
        (body("FP64", ["1.5"]), "not FP64"),
        (body("FP64", [True]), "not FP64"),
        (body("FP64", [10**400]), "not FP64"),
        (body("BOOL", ["x"]), "not BOOL"),
        (body("BOOL", [1]), "not BOOL"),
        (body("BYTES", [1]), "not BYTES"),
        (body("FP64", 1.0, [1]), "is not an inference request"),
        (body("FP16", [1.0]), "binary data only"),
        (body("FP99", [1.0]), "'FP99'; known"),
        (body("FP64", [[[1.0]]], [1]), "not FP64"),
        (body("FP64", [1.0], [1] * 70), "70 dimensions"),
        (body("BYTES", [], [0, 2**62]), "no array has"),
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1]}]}', "neither data nor binary_data_size"),
        (b'{"inputs": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "is not an inference request"),
        (b'{"id": ' + b"[" * 5_000 + b"]" * 5_000 + b', "inputs": []}', "is not an inference request"),
        (b'{"inputs": [], "parameters": {"x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}}", "is not an inference request"),
        (b'{"inputs": [], "id": "\xff"}', "is not an inference request"),
    ],
)
def test_what_cannot_be_read_is_told(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text.replace("[", r"\[")):
        read(raw)


@pytest.mark.parametrize("kind", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)])
def test_narrow_numbers_travel_as_binary_data(kind: np.dtype[Any]) -> None:
    raw = np.array([0.25, -1.5], dtype=kind).tobytes()
    one = {"name": "x", "datatype": "FP16" if kind == np.float16 else "BF16", "shape": [2, 1]}
    text = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    assert read(text + raw, str(len(text))).array.tolist() == [[0.25], [-1.5]]


def test_outputs_are_json_of_their_datatype() -> None:
    outputs = [
        Tensor("flag", "BOOL", np.array([True, False])),
        Tensor("count", "INT64", np.array([1.0, 2.0])),
        Tensor("score", "FP32", np.array([0.5, math.nan], dtype=np.float32)),
        Tensor("word", BYTES, np.array([b"a", b"b"], dtype=np.object_)),
    ]
    content, length = with_id(encoded(Answered("m", "1", outputs), frozenset()), "r")
    assert length is None
    shown = {one["name"]: one["data"] for one in json.loads(content)["outputs"]}
    assert json.dumps(shown["flag"]) == "[true, false]"
    assert shown == {"flag": [True, False], "count": [1, 2], "score": [0.5, None], "word": ["a", "b"]}


@pytest.mark.parametrize(
    ("every", "outputs", "binary"),
    [
        (None, {}, frozenset()),
        (True, {}, None),
        (True, {"a": None, "b": False, "c": True}, {"a", "c"}),
        (False, {"a": None, "b": False, "c": True}, {"c"}),
    ],
)
def test_an_output_says_for_itself_whether_it_is_binary(
    every: bool | None, outputs: dict[str, bool | None], binary: set[str] | None
) -> None:
    wanted = json.loads(body("FP64", [1.0]))
    wanted["parameters"] = {} if every is None else {"binary_data_output": every}
    wanted["outputs"] = [
        {"name": name, "parameters": {} if given is None else {"binary_data": given}} for name, given in outputs.items()
    ]
    assert body_parts(json.dumps(wanted).encode(), None)[0].binary_outputs() == binary


@pytest.mark.parametrize("name", ["shared_memory_region"])
def test_what_is_not_offered_is_not_left_out_in_silence(name: str) -> None:
    with pytest.raises(NotOfferedError, match="is not supported"):
        read(body("FP64", [1.0], parameters={name: "r"}))
    wanted = json.loads(body("FP64", [1.0]))
    for given, refused in (({name: 2}, True), ({"binary_data": True}, False)):
        wanted["outputs"] = [{"name": "score", "parameters": given}]
        if refused:
            with pytest.raises(NotOfferedError):
                read(json.dumps(wanted).encode())
        else:
            read(json.dumps(wanted).encode())


def test_an_output_may_be_asked_for_by_its_classes() -> None:
    def classes(**given: Any) -> tuple[int, ...]:
        wanted = json.loads(body("FP64", [1.0]))
        wanted["outputs"] = [{"name": "score", "parameters": given}, {"name": "label"}]
        return asked(json.dumps(wanted).encode()).classes

    assert (classes(classification=3), classes()) == ((3, 0), (0, 0))
    for wrong in (0, -1, True, "2", 1.5, None):
        with pytest.raises(InvalidRequestError, match="number of classes"):
            classes(classification=wrong)


LONG = {
    "FP64": [None, -2.5, 1e300],
    "FP32": [0.25, 3],
    "INT64": [2**53, -7],
    "UINT8": [0, 255],
    "BOOL": [True, False],
    "BYTES": ["a", "é, [\\]", '"', ""],
}


@pytest.mark.parametrize("datatype", list(LONG))
def test_long_data_is_what_short_data_is(datatype: str) -> None:
    rows = [LONG[datatype]] * 20_000
    shape, width = [len(rows), len(rows[0])], len(rows[0])
    [short] = [read(body(datatype, rows[0], [1, width])).array]
    for data in (rows, [one for row in rows for one in row], [[[one]] for row in rows for one in row]):
        raw = body(datatype, data, [*shape, 1])
        assert len(raw) > 4 * SLICE_BYTES
        tensor = read(raw)
        assert (tensor.datatype, tensor.array.dtype, tensor.array.shape) == (datatype, short.dtype, (*shape, 1))
        expected = np.repeat(short.reshape(1, width), len(rows), axis=0)
        np.testing.assert_array_equal(tensor.array[:, :, 0], expected)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (body("FP64", [1.0] * 20_000 + ["x"]), "not FP64"),
        (body("INT32", [1] * 20_000 + [1.5]), "not INT32"),
        (body("INT8", [1] * 20_000 + [300]), "not INT8"),
        (body("FP32", [1] * 20_000 + [1e39]), "not FP32"),
        (body("BYTES", ["x"] * 20_000 + [1]), "not BYTES"),
        (body("FP64", [[[1.0]]] * 20_000), "not FP64"),
        (body("FP64", [1.0] * 20_000, [20_001]), "has 20000 elements, shape [20001] takes 20001"),
        (body("FP64", {"a": [1.0] * 20_000}, [20_000]), "is no list"),
        (body("FP16", [1.0] * 20_000), "binary data only"),
        (body("FP64", [1.0], parameters={"x": "y" * MAX_BESIDE}), "'parameters' take"),
        (b'{"inputs": [], "outputs": [' + b"  " * MAX_BESIDE + b"]}", "'outputs' take"),
    ],
)
def test_what_cannot_be_read_of_long_bodies_is_told(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(text)):
        read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        body("FP64", [[1.5]] * 100_000, [100_000, 1]),
        body("BYTES", ["a"] * 100_000),
        json.dumps({"inputs": [json.loads(body("FP64", [1.5]))["inputs"][0]] * 10_000}).encode(),
    ],
    ids=["numbers", "texts", "inputs"],
)
async def test_the_event_loop_turns_while_a_long_body_is_read(raw: bytes) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(turn())
    await asked_of("m", "", *body_parts(raw, None), max_rows=100_000)
    other.cancel()
    assert turns >= 0.9 * len(raw) / SLICE_BYTES


async def test_a_short_body_is_read_in_one_turn() -> None:
    turn = asyncio.ensure_future(asyncio.sleep(0))
    await asked_of("m", "", *body_parts(body("FP64", [1.5] * 1_000), None), max_rows=1_000)
    assert not turn.done()


async def test_too_many_rows_are_refused_before_they_are_read() -> None:
    raw = body("FP64", ["not read"] * 11)
    with pytest.raises(InvalidRequestError, match="11 rows in one call, the limit is 10"):
        await asked_of("m", "", *body_parts(raw, None), max_rows=10)
