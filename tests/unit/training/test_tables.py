from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from training.component import Table
from training.tables import TableError, read, read_parquet, write_parquet


def csv(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text)
    return path


def test_csv_keeps_leading_zeros_and_reads_gaps_as_nan(tmp_path: Path) -> None:
    table = read(csv(tmp_path, "age,id,y\n 3.5 ,007,1\n,08,0\n"), "id", "y")
    assert table.ids == ("007", "08")
    assert table.columns == ("age",)
    np.testing.assert_array_equal(table.features, [[3.5], [np.nan]])
    assert table.label is not None and table.label.tolist() == [1.0, 0.0]


def test_parquet_with_whole_number_ids(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pl.DataFrame({"id": [3, 1], "a": [1, None], "b": [True, False]}).write_parquet(path)
    table = read(path, "id")
    assert (table.ids, table.label) == (("3", "1"), None)
    np.testing.assert_array_equal(table.features, [[1, 1], [np.nan, 0]])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id,a,y\n1,2,0\n1,3,1\n", "column 'id', row 2: the same id is in row 1"),
        ("id,a,y\n1,2,0\n,3,1\n", "column 'id', row 2: the id is empty"),
        ("id,a,y\n1,2,0\n2,tall,1\n", "column 'a', row 2: 'tall' is not a number"),
        ("id,a,y\n1,inf,0\n", "column 'a', row 1: the value is infinite"),
        ("id,a,y\n1,2,0\n2,2,\n", "column 'y', row 2: the label is missing"),
        ('id,a,y\n1,2,0\n" ",3,1\n', "column 'id', row 2: the id is empty"),
        ("id,a,y,a\n1,2,0,3\n", "column 'a' is there twice"),
        ("id,a\n1,2\n", "there is no column 'y'"),
        ("id,a,y\n", "the table has no rows"),
        ("", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(TableError) as caught:
        read(csv(tmp_path, text), "id", "y")
    assert "people.csv" in str(caught.value) and reason in str(caught.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such file"):
        read(tmp_path / "none.csv", "id")
    with pytest.raises(TableError, match=r"must be a \.csv or \.parquet"):
        read(tmp_path / "people.xls", "id")
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(TableError, match="cannot be read"):
        read(tmp_path / "bad.parquet", "id")


@pytest.mark.parametrize("value", [1.0, True, [1], date(2026, 1, 1)])
def test_what_cannot_be_an_id(tmp_path: Path, value: object) -> None:
    pl.DataFrame({"id": [value]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=r"a\.parquet: column 'id': ids must be texts or whole numbers"):
        read(tmp_path / "a.parquet", "id")


@pytest.mark.parametrize("value", [[1], date(2026, 1, 1)])
def test_what_cannot_be_a_feature(tmp_path: Path, value: object) -> None:
    pl.DataFrame({"id": ["1"], "a": [value]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=r"a\.parquet: column 'a': must hold numbers, not"):
        read(tmp_path / "a.parquet", "id")


def test_a_column_without_any_value(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["1"], "a": [None]}).write_parquet(tmp_path / "a.parquet")
    assert np.isnan(read(tmp_path / "a.parquet", "id").features).all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_parquet(Path("/dev/full"), Table(("1",), (), np.empty((1, 0))))


@pytest.mark.parametrize("label", [None, np.array([0.0, 1.0])])
@pytest.mark.parametrize("columns", [(), ("id", "label")])
def test_a_stored_table_comes_back(tmp_path: Path, columns: tuple[str, ...], label: np.ndarray | None) -> None:
    table = Table(("01", "1"), columns, np.array([[1.5, np.nan], [2, 3]])[:, : len(columns)], label)
    write_parquet(tmp_path / "t.parquet", table)
    back = read_parquet(tmp_path / "t.parquet")
    assert (back.ids, back.columns) == (table.ids, table.columns)
    np.testing.assert_array_equal(back.features, table.features)
    np.testing.assert_array_equal(back.label, label) if label is not None else None
    assert (back.label is None) == (label is None)
