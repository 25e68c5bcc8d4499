"""JSON values as features."""

from __future__ import annotations

import math

import pytest

from loaders.signature import OTHER, FeatureError, Missing, Signature, TensorSpec
from serving.errors import InvalidRequestError
from serving.frontdoor.fate.features import check_row, features_in, specs_of, user_id_in

NATIVE = Missing.NATIVE
SIGNATURE = Signature(
    (
        TensorSpec(name="x", dtype="float64", shape=(-1,), missing=NATIVE, spellings={"na": None, "low": -1.0}),
        TensorSpec(name="v", dtype="float64", shape=(-1, 2), columns=("v1", "v2")),
        TensorSpec(name="colour", dtype="string", shape=(-1,), missing=NATIVE),
        TensorSpec(name="name", dtype="string", shape=(-1,)),
    ),
    (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),),
)
SPECS = specs_of([SIGNATURE])


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (2.5, 2.5), ("1e3", 1000.0), (" 2 ", 2.0), ("low", -1.0), ("Infinity", math.inf), (-0.0, 0.0)],
)
def test_numbers_may_be_spelled(value: object, number: float) -> None:
    assert features_in({"x": value, "v2": 1}, SPECS) == ({"x": number, "v2": 1.0}, {})


@pytest.mark.parametrize("value", ["na", "NaN"])
def test_what_is_spelled_missing_is_missing(value: str) -> None:
    numbers, _ = features_in({"x": value}, SPECS)
    assert math.isnan(numbers["x"])


def test_nothing_and_unknown_names_are_left_out() -> None:
    assert features_in({"x": None, "other": 1, "more": [1]}, SPECS) == ({}, {})


def test_whole_numbers_are_told_from_others_where_that_counts() -> None:
    spec = TensorSpec(name="x", dtype="float64", shape=(-1,), spellings={OTHER: 0.5, "na": None})
    signature = Signature((spec,), (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),))
    for value, number in ((1, 1.0), ("2", 2.0), (1.0, 0.5), (2.5, 2.5), ("2.0", 0.5), ("red", 0.5), ("nan", 0.5)):
        assert features_in({"x": value}, specs_of([signature])) == ({"x": number}, {})
    assert math.isnan(features_in({"x": "na"}, specs_of([signature]))[0]["x"])


@pytest.mark.parametrize(("value", "text"), [("red", "red"), (1, "1"), (1.0, "1"), (1.5, "1.5")])
def test_texts_may_be_numbers(value: object, text: str) -> None:
    assert features_in({"colour": value}, SPECS) == ({}, {"colour": text})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"x": 10**400}, "'x' is a whole number beyond float64"),
        ({"x": True}, "'x' is true or false"),
        ({"x": "abc"}, "'x' is a text that spells no number"),
        ({"x": ""}, "spells no number"),
        ({"x": "1_000"}, "spells no number"),
        ({"x": [1]}, "'x' must be a number"),
        ({"colour": True}, "'colour' must be a text"),
        ({"colour": {}}, "'colour' must be a text"),
    ],
)
def test_other_values_are_refused_by_name(values: dict[str, object], text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        features_in(values, SPECS)


def test_rows_that_would_spoil_a_batch_are_found_before() -> None:
    numbers, texts = {"v1": 1.0, "v2": 2.0}, {"name": "n"}
    check_row(numbers, texts, SPECS)
    for wrong, named in (({"v1": 1.0}, "'v2' is missing"), ({**numbers, "x": math.inf}, "'x' is infinite")):
        with pytest.raises(FeatureError, match=named):
            check_row(wrong, texts, SPECS)
    with pytest.raises(FeatureError, match="'name' is missing"):
        check_row(numbers, {}, SPECS)


@pytest.mark.parametrize(
    ("sent", "name", "user"),
    [
        ({}, "", ""),
        ({"device_id": "8"}, "", "8"),
        ({"device_id": 8}, "", "8"),
        ({"phone": "1", "device_id": "8"}, "device_id", "8"),
        ({"phone": "1", "device_id": "8"}, "", '{"device_id":"8","phone":"1"}'),
        ({"phone": "1"}, "device_id", "1"),
    ],
)
def test_the_user_is_named_by_what_is_sent_to_hosts(sent: dict[str, object], name: str, user: str) -> None:
    assert user_id_in(sent, name) == user


@pytest.mark.parametrize("value", [None, True, 1.5, ["8"]])
def test_a_user_is_a_text_or_a_whole_number(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="names a user by"):
        user_id_in({"id": value}, "")
