from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from loaders.signature import Missing, Signature, TensorSpec
from serving.features import user_table
from serving.features.user_table import SLICE, UserTable

ROWS = 3 * SLICE + 5
SIGNATURE = Signature(
    (
        TensorSpec(name="age", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),
        TensorSpec(name="city", dtype="string", shape=(-1,)),
    ),
    (),
)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that were made."""
    made: list[float] = []
    monkeypatch.setattr(user_table.time, "sleep", made.append)
    return made


def table() -> UserTable:
    ages = [None if row % 5 == 0 else row for row in range(ROWS)]
    cities = [None if row % 7 == 0 else f"c{row % 11}" for row in range(ROWS)]
    frame = pl.DataFrame({"id": [f"u{row}" for row in range(ROWS)], "age": ages, "city": cities})
    return UserTable(frame, frame["id"])


def test_every_row_of_every_slice_is_found(pauses: list[float]) -> None:
    users = table()
    rows, found = users.positions([f"u{row}" for row in reversed(range(ROWS))])
    assert found.all()
    assert rows.tolist() == list(reversed(range(ROWS)))
    assert len(users) == ROWS


def test_who_is_not_there_gets_the_row_of_nothing(pauses: list[float]) -> None:
    users = table()
    rows, found = users.positions(["u1", "u", f"u{ROWS}"])
    assert found.tolist() == [True, False, False]
    batch = users.pick(SIGNATURE).take(rows)
    assert np.isnan(batch.numbers[1:]).all()
    assert batch.texts.tolist() == [["c1"], [None], [None]]


def test_columns_are_those_of_the_frame_with_its_gaps(pauses: list[float]) -> None:
    batch = table().pick(SIGNATURE).take(np.arange(ROWS))
    expected = [np.nan if row % 5 == 0 else row for row in range(ROWS)]
    np.testing.assert_array_equal(batch.numbers[:, 0], expected)
    assert batch.texts[:, 0].tolist() == [None if row % 7 == 0 else f"c{row % 11}" for row in range(ROWS)]


def test_others_may_run_between_the_slices(pauses: list[float]) -> None:
    users = table()
    assert len(pauses) == 3
    users.pick(SIGNATURE)
    pauses.clear()
    users.release()
    assert len(pauses) >= user_table.SHARDS / 4 - 1
    assert not users.positions(["u1"])[1].any()
    assert users.pick(SIGNATURE).numbers.size == 0
