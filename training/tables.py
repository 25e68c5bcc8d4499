"""Tables of one party: read from CSV or Parquet, and kept as Parquet between tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.component import Table

if TYPE_CHECKING:
    import polars as pl

# How a stored table spells its own columns; features are prefixed, so none can collide.
_ID, _LABEL, _FEATURE = "id", "label", "f:"


class TableError(Exception):
    """A table cannot be read; the text names the file, the column and the row (counted from 1 after the header)."""


def read(path: Path, id_column: str, label_column: str = "") -> Table:
    """The file's rows in order. Ids stay texts, leading zeros included; an empty cell of a feature is NaN."""
    frame = _frame(path)
    for column in filter(None, (id_column, label_column)):
        if column not in frame.columns:
            raise TableError(f"{path}: there is no column {column!r}; there are {', '.join(frame.columns[:20])}")
    if not frame.height:
        raise TableError(f"{path}: the table has no rows")
    columns = tuple(name for name in frame.columns if name not in (id_column, label_column))
    features = [_numbers(path, frame[name]) for name in columns]
    return Table(
        _ids(path, frame[id_column]),
        columns,
        np.column_stack(features) if features else np.empty((frame.height, 0)),
        _label(path, frame[label_column]) if label_column else None,
    )


def write_parquet(path: Path, table: Table) -> None:
    """Raises OSError."""
    import polars as pl  # noqa: PLC0415 - only where tables are read or written

    series = [pl.Series(_ID, table.ids, dtype=pl.String)]
    if table.label is not None:
        series.append(pl.Series(_LABEL, table.label, dtype=pl.Float64))
    series += [
        pl.Series(_FEATURE + name, table.features[:, position], dtype=pl.Float64)
        for position, name in enumerate(table.columns)
    ]
    try:
        pl.DataFrame(series).write_parquet(path)
    except pl.exceptions.PolarsError as error:  # how polars tells of a full disk
        raise OSError(str(error).splitlines()[0]) from None


def read_parquet(path: Path) -> Table:
    """What `write_parquet` wrote."""
    import polars as pl  # noqa: PLC0415

    frame = pl.read_parquet(path)
    columns = [name for name in frame.columns if name.startswith(_FEATURE)]
    label = frame[_LABEL].to_numpy().astype(np.float64) if _LABEL in frame.columns else None
    features = frame.select(columns).to_numpy().astype(np.float64) if columns else np.empty((frame.height, 0))
    return Table(
        tuple(frame[_ID].to_list()),
        tuple(name.removeprefix(_FEATURE) for name in columns),
        np.ascontiguousarray(features),
        label,
    )


def _frame(path: Path) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415

    try:
        match path.suffix.lower():
            case ".csv":
                _check_header(path)
                return pl.read_csv(path, infer_schema=False)  # everything as text, so that ids keep their zeros
            case ".parquet":
                return pl.read_parquet(path)
    except FileNotFoundError:
        raise TableError(f"{path}: there is no such file") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    raise TableError(f"{path}: must be a .csv or .parquet file")


def _check_header(path: Path) -> None:
    """A column named twice would get a name that nobody gave it."""
    import polars as pl  # noqa: PLC0415

    names = pl.read_csv(path, has_header=False, n_rows=1, infer_schema=False).row(0)
    for position, name in enumerate(names):
        if name in names[:position]:
            raise TableError(f"{path}: column {name!r} is there twice")


def _ids(path: Path, series: pl.Series) -> tuple[str, ...]:
    import polars as pl  # noqa: PLC0415

    if not (series.dtype.is_integer() or series.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise TableError(f"{path}: column {series.name!r}: ids must be texts or whole numbers, not {series.dtype}")
    seen: dict[str, int] = {}
    ids: list[str | None] = series.cast(pl.String).to_list()
    for row, name in enumerate(ids, 1):
        if not (name and name.strip()):
            raise TableError(f"{path}: column {series.name!r}, row {row}: the id is empty")
        if name in seen:
            raise TableError(f"{path}: column {series.name!r}, row {row}: the same id is in row {seen[name]}")
        seen[name] = row
    return tuple(seen)


def _label(path: Path, series: pl.Series) -> npt.NDArray[np.float64]:
    values = _numbers(path, series)
    if np.isnan(values).any():
        row = int(np.isnan(values).argmax()) + 1
        raise TableError(f"{path}: column {series.name!r}, row {row}: the label is missing")
    return values


def _numbers(path: Path, series: pl.Series) -> npt.NDArray[np.float64]:
    import polars as pl  # noqa: PLC0415

    if series.dtype == pl.String:
        series = series.str.strip_chars()
        series = series.set(series == "", None)
    elif not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
        raise TableError(f"{path}: column {series.name!r}: must hold numbers, not {series.dtype}")
    numbers = series.cast(pl.Float64, strict=False)
    for row in _rows(numbers.is_null() & series.is_not_null()):
        raise TableError(f"{path}: column {series.name!r}, row {row}: {series[row - 1]!r} is not a number")
    for row in _rows(numbers.is_infinite().fill_null(value=False)):
        raise TableError(f"{path}: column {series.name!r}, row {row}: the value is infinite")
    return numbers.fill_null(float("nan")).to_numpy().astype(np.float64)


def _rows(mask: pl.Series) -> Iterator[int]:
    yield from (int(row) + 1 for row in mask.arg_true())
