from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.signature import Batch, FeatureError, Missing, Signature, TensorSpec, all_finite

OUTPUT = (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),)


def number(name: str, missing: Missing = Missing.ERROR) -> TensorSpec:
    return TensorSpec(name=name, dtype="float64", shape=(-1,), missing=missing)


def text(name: str, missing: Missing = Missing.ERROR) -> TensorSpec:
    return TensorSpec(name=name, dtype="string", shape=(-1,), missing=missing)


MIXED = Signature((number("a"), text("t"), number("b", Missing.IMPUTE), text("u", Missing.NATIVE)), OUTPUT)


def test_features_stand_in_the_order_of_their_inputs() -> None:
    vector = TensorSpec(name="v", dtype="float32", shape=(-1, 2))
    named = TensorSpec(name="w", dtype="float32", shape=(-1, 2, 1), columns=("p", "q"))
    signature = Signature((number("a"), vector, text("t"), named), OUTPUT)
    assert signature.numbers == ("a", "v[0]", "v[1]", "p", "q")
    assert signature.texts == ("t",)


def test_the_digest_follows_the_inputs() -> None:
    base = Signature((number("a"), number("b")), OUTPUT)
    assert base.digest == Signature((number("a", Missing.IMPUTE), number("b")), ()).digest
    others = [(number("b"), number("a")), (number("a"),), (text("a"), number("b"))]
    assert base.digest not in {Signature(inputs, OUTPUT).digest for inputs in others}


def test_a_feature_may_be_declared_once() -> None:
    with pytest.raises(FeatureError, match="'a' is declared twice"):
        Signature((number("a"), text("a")), OUTPUT)


def test_a_row_is_filled_by_name() -> None:
    batch = MIXED.row({"b": 2.0, "a": 1.0}, {"t": "x"})
    assert batch.numbers.tolist() == [[1.0, 2.0]]
    assert batch.texts.tolist() == [["x", None]]
    MIXED.check(batch)


@pytest.mark.parametrize(
    ("numbers", "texts", "message"),
    [
        ({"a": 1.0, "z": 1.0}, {}, "unknown feature 'z'"),
        ({"a": 1.0}, {"z": "x"}, "unknown feature 'z'"),
        ({"t": 1.0}, {}, "'t' is a text"),
        ({}, {"a": "1"}, "'a' is a number"),
    ],
)
def test_unknown_names_are_refused_unless_ignored(numbers, texts, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        MIXED.row(numbers, texts)
    with pytest.raises(FeatureError, match=message):
        MIXED.columns(1, {name: [value] for name, value in numbers.items()}, {name: [v] for name, v in texts.items()})
    assert MIXED.row(numbers, texts, ignore_unknown=True).rows == 1


@pytest.mark.parametrize(
    ("numbers", "texts", "message"),
    [
        ({}, {"t": "x"}, "feature 'a' is missing"),
        ({"a": math.nan}, {"t": "x"}, "feature 'a' is missing"),
        ({"a": math.inf}, {"t": "x"}, "feature 'a' is infinite"),
        ({"a": 1.0, "b": -math.inf}, {"t": "x"}, "feature 'b' is infinite"),
        ({"a": 1.0}, {}, "text feature 't' is missing"),
    ],
)
def test_check_names_the_feature(numbers, texts, message: str) -> None:
    batch = MIXED.row(numbers, texts)
    with pytest.raises(FeatureError, match=message):
        MIXED.check(batch)
    assert MIXED.usable(batch).tolist() == [False]


def test_columns_must_be_as_long_as_the_batch() -> None:
    with pytest.raises(FeatureError, match="'a' has 2 values for 3 rows"):
        MIXED.columns(3, {"a": [1.0, 2.0]}, {})


values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
words = st.one_of(st.none(), st.text(max_size=3))


@given(st.lists(st.tuples(values, values, words, words), min_size=1, max_size=8))
def test_a_batch_is_its_rows(rows: list[tuple[float | None, float | None, str | None, str | None]]) -> None:
    filled = [[math.nan if value is None else value for value in row[:2]] for row in rows]
    batch = MIXED.columns(
        len(rows),
        {"a": [row[0] for row in filled], "b": [row[1] for row in filled]},
        {"t": [row[2] for row in rows], "u": [row[3] for row in rows]},
    )
    singles = [
        MIXED.row(
            {name: value for name, value in zip("ab", row[:2], strict=True) if value is not None},
            {name: value for name, value in zip("tu", row[2:], strict=True) if value is not None},
        )
        for row in rows
    ]
    assert np.array_equal(batch.numbers, np.concatenate([single.numbers for single in singles]), equal_nan=True)
    assert batch.texts.tolist() == [single.texts.tolist()[0] for single in singles]
    accepted = []
    for single in singles:
        try:
            MIXED.check(single)
        except FeatureError:
            accepted.append(False)
        else:
            accepted.append(True)
    assert MIXED.usable(batch).tolist() == accepted


def test_take_keeps_the_rows_asked_for() -> None:
    batch = Batch(np.arange(6.0).reshape(3, 2), np.array([["a"], ["b"], ["c"]], dtype=np.object_))
    some = batch.take(np.array([2, 0]))
    assert some.numbers.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert some.texts.tolist() == [["c"], ["a"]]


@given(st.lists(st.floats(), max_size=40))
def test_all_finite_is_what_looking_at_each_says(values: list[float]) -> None:
    assert all_finite(np.array(values)) is all(map(math.isfinite, values))
