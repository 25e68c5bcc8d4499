"""What every feature source does, over the same users."""

from __future__ import annotations

import math

import polars as pl
import pytest

from loaders.signature import Missing, Signature, TensorSpec
from serving.features.file import FileFeatureSource
from serving.features.memory import MemoryFeatureSource
from serving.features.source import FeatureSourceError

USERS = {
    "007": {"age": 41.0, "income": 1.5, "city": "Bonn"},
    "7": {"age": 23.0, "income": -2.25, "city": "Kiel"},
    "ü": {"age": 5.0, "income": math.nan, "city": None},
}
FRAME = pl.DataFrame(
    {
        "id": list(USERS),
        "age": [41, 23, 5],
        "income": [1.5, -2.25, None],
        "city": ["Bonn", "Kiel", None],
    }
)


def numbers(*names):
    return tuple(TensorSpec(name=name, dtype="float64", shape=(-1,), missing=Missing.IMPUTE) for name in names)


BOTH = Signature((*numbers("income", "age"), TensorSpec(name="city", dtype="string", shape=(-1,))), ())


def memory(folder):
    return MemoryFeatureSource(USERS, 30.0)


def csv(folder):
    FRAME.write_csv(folder / "users.csv")
    return FileFeatureSource(folder / "users.csv", "id", 30.0)


def parquet(folder):
    FRAME.write_parquet(folder / "users.parquet")
    return FileFeatureSource(folder / "users.parquet", "id", 30.0)


@pytest.fixture(params=[memory, csv, parquet])
async def source(request, tmp_path):
    made = request.param(tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_rows_come_in_the_order_asked_and_in_signature_order(source):
    rows = await source.lookup(["7", "007", "7"], BOTH)
    assert rows.batch.numbers.tolist() == [[-2.25, 23.0], [1.5, 41.0], [-2.25, 23.0]]
    assert rows.batch.texts.tolist() == [["Kiel"], ["Bonn"], ["Kiel"]]
    assert rows.found.tolist() == [True, True, True]


async def test_an_unknown_user_is_not_found_and_never_zeros(source):
    rows = await source.lookup(["0007", "7", "", "07"], BOTH)
    assert rows.found.tolist() == [False, True, False, False]
    assert all(math.isnan(value) for value in rows.batch.numbers[0])
    assert rows.batch.texts[0].tolist() == [None]
    assert rows.batch.numbers[1].tolist() == [-2.25, 23.0]


async def test_a_missing_value_of_a_known_user_is_missing(source):
    rows = await source.lookup(["ü"], BOTH)
    assert rows.found.tolist() == [True]
    assert math.isnan(rows.batch.numbers[0, 0])
    assert rows.batch.numbers[0, 1] == 5.0
    assert rows.batch.texts.tolist() == [[None]]


async def test_nobody_asked(source):
    rows = await source.lookup([], BOTH)
    assert rows.batch.numbers.shape == (0, 2)
    assert rows.found.shape == (0,)


async def test_two_models_read_different_features(source):
    assert (await source.lookup(["7"], Signature(numbers("age"), ()))).batch.numbers.tolist() == [[23.0]]
    assert (await source.lookup(["7"], Signature(numbers("income"), ()))).batch.numbers.tolist() == [[-2.25]]


async def test_absent_features_are_named(source):
    lacking = Signature(numbers("age", "height", "weight"), ())
    with pytest.raises(FeatureSourceError, match="'height', 'weight'"):
        source.check(lacking)
    with pytest.raises(FeatureSourceError, match="'height', 'weight'"):
        await source.lookup(["7"], lacking)
    source.check(BOTH)


async def test_it_says_how_fresh_it_is(source):
    assert (await source.lookup(["7"], BOTH)).max_age_s == 30.0


async def test_rows_belong_to_the_caller(source):
    rows = await source.lookup(["7"], BOTH)
    rows.batch.numbers[:] = 0
    assert (await source.lookup(["7"], BOTH)).batch.numbers.tolist() == [[-2.25, 23.0]]
