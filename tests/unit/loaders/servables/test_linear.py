"""The compiled linear half by itself: bits, and numbers that are too large."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import Steps
from loaders.signature import Batch, FeatureError, Signature, TensorSpec


def numbers(*rows: list[float]) -> Batch:
    matrix = np.array(rows, dtype=np.float64)
    return Batch(matrix, np.empty((len(rows), 0), dtype=np.object_))


@pytest.mark.parametrize("row", [[1e308, -1e308], [1e308, 1e308], [math.nan, 1.0]])
def test_no_score_is_made_of_what_is_not_finite(row: list[float]) -> None:
    servable = linear([[10.0, 10.0]])
    with pytest.raises(FeatureError, match="no finite result"):
        servable.predict(numbers([1.0, 1.0], row))


def test_large_rows_that_only_add_up_to_infinity_are_answered() -> None:
    partial = linear([[1.0, 1.0]]).predict(numbers([1e308, 0.0], [1e308, 0.0]))["partial"]
    assert partial.tolist() == [[1e308], [1e308]]


finite = st.floats(-1e6, 1e6)


@given(
    st.integers(1, 40).flatmap(
        lambda k: st.tuples(
            st.lists(st.lists(finite | st.just(math.nan), min_size=k, max_size=k), min_size=1, max_size=12),
            st.lists(st.lists(st.floats(-10, 10), min_size=k, max_size=k), min_size=1, max_size=3),
        )
    )
)
def test_a_row_gives_the_same_bits_alone_and_in_a_batch(case: tuple[list[list[float]], list[list[float]]]) -> None:
    rows, weights = case
    servable = linear(weights, fill=3.0, intercept=0.25)
    batch = numbers(*rows)
    whole = servable.predict(batch)["partial"]
    by_columns = servable.predict(Batch(np.asfortranarray(batch.numbers), batch.texts))["partial"]
    assert whole.tobytes() == by_columns.tobytes(), "how a batch lies in memory must not matter"
    alone = np.concatenate([servable.predict(numbers(row))["partial"] for row in rows])
    assert whole.tobytes() == alone.tobytes()
    filled = [[3.0 if math.isnan(x) else x for x in row] for row in rows]
    exact = [[math.fsum([0.25, *map(operator.mul, row, column)]) for column in weights] for row in filled]
    assert np.allclose(whole, exact, rtol=1e-9, atol=1e-6)


def linear(weights: list[list[float]], fill: float = math.nan, intercept: float = 0.0) -> LinearServable:
    """A half with these weights (width, features); `fill` replaces what is missing."""
    matrix = np.array(weights).T
    features, width = matrix.shape
    signature = Signature(
        (TensorSpec(name="v", dtype="float64", shape=(-1, features)),),
        (TensorSpec(name="partial", dtype="float64", shape=(-1, width)),),
    )
    steps = Steps(np.full(features, fill), np.zeros(features), np.ones(features))
    return LinearServable(signature, steps, matrix, np.full(width, intercept))
