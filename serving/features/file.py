"""Features from a CSV or Parquet file, held in memory and read again when the file changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loaders.signature import Batch, Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Content:
    """The file as it was at `stamp` (modification time in ns, size): rows by id, and the columns as polars has them."""

    stamp: tuple[int, int]
    rows: Mapping[str, int]
    frame: Any
    picked: dict[bytes, Batch] = field(default_factory=dict)
    """The whole file in signature order, by signature digest, and one row of nothing; filled on first use."""
    signatures: list[Signature] = field(default_factory=list)


class FileFeatureSource(FeatureSource):
    """`clock` is monotonic seconds; the file is looked at once a second at most, and read again on a thread."""

    def __init__(
        self,
        path: Path,
        id_column: str = "id",
        max_age_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._id_column = id_column
        self._max_age_s = max_age_s
        self._clock = clock
        self._content: _Content | None = None
        self._look_at_s = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._refused: tuple[int, int] | None = None

    async def open(self) -> None:
        self._content = await asyncio.to_thread(self._read)
        self._look_at_s = self._clock() + CHECK_EVERY_S

    def check(self, signature: Signature) -> None:
        self._pick(self._opened(), signature)

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        self._refresh()
        content = self._opened()
        whole = content.picked.get(signature.digest)
        if whole is None:  # all rows of a large file: not on the event loop
            whole = await asyncio.to_thread(self._pick, content, signature)
        get = content.rows.get
        positions = np.array([get(user_id, -1) for user_id in user_ids], dtype=np.intp)
        found = positions >= 0
        # The last row of `whole` stands for those who are not there.
        return FeatureRows(whole.take(positions), found, self._max_age_s)

    async def reread(self) -> None:
        """Look at the file now, and read it again if it has changed."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._reread())
        await asyncio.shield(self._reading)

    async def close(self) -> None:
        if self._reading is not None:
            await self._reading
        self._content = None

    def _opened(self) -> _Content:
        if self._content is None:
            raise FeatureSourceError(f"feature file {self._path.name} is not open")
        return self._content

    def _refresh(self) -> None:
        """Read again in the background when the file has changed; look-ups go on with what is there."""
        if self._clock() < self._look_at_s or (self._reading is not None and not self._reading.done()):
            return
        self._look_at_s = self._clock() + CHECK_EVERY_S
        self._reading = asyncio.create_task(self._reread())

    async def _reread(self) -> None:
        """A new file is taken only when it has all that look-ups have asked for; else the old rows stay."""
        before = self._opened()
        try:
            stamp = await asyncio.to_thread(self._stamp)
            if stamp in {before.stamp, self._refused}:
                return
            self._refused = stamp
            self._content = await asyncio.to_thread(self._read, list(before.signatures))
            logger.info("feature file %s has changed, %d rows", self._path.name, len(self._content.rows))
        except (OSError, FeatureSourceError) as error:
            logger.warning("feature file %s cannot be read again, the old rows stay: %s", self._path.name, error)

    def _stamp(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size

    def _read(self, signatures: Sequence[Signature] = ()) -> _Content:
        import polars as pl  # noqa: PLC0415 - only parties that are hosts need it

        try:
            stamp = self._stamp()
            if self._path.suffix == ".parquet":
                frame = pl.read_parquet(self._path)
            else:
                # Ids are texts (leading zeros count); the type of every other column follows from all of its rows.
                frame = pl.read_csv(self._path, schema_overrides={self._id_column: pl.String}, infer_schema_length=None)
        except FileNotFoundError:
            raise FeatureSourceError(
                f"feature file {self._path} does not exist; mend `features` in the settings"
            ) from None
        except (pl.exceptions.PolarsError, OSError) as error:
            raise FeatureSourceError(f"feature file {self._path} cannot be read: {error}") from None
        content = _Content(stamp, self._index(frame), frame)
        for signature in signatures:
            self._pick(content, signature)
        return content

    def _index(self, frame: Any) -> Mapping[str, int]:
        import polars as pl  # noqa: PLC0415

        if self._id_column not in frame.columns:
            raise FeatureSourceError(f"feature file {self._path} has no column {self._id_column!r} for the user id")
        column = frame[self._id_column]
        if column.dtype != pl.String and not column.dtype.is_integer():
            raise FeatureSourceError(
                f"feature file {self._path}: column {self._id_column!r} holds {column.dtype}, not ids"
            )
        ids = column.cast(pl.String).to_list()
        rows = {user_id: row for row, user_id in enumerate(ids)}
        if len(rows) != len(ids) or None in rows:
            raise FeatureSourceError(f"feature file {self._path}: column {self._id_column!r} has empty or repeated ids")
        return rows

    def _pick(self, content: _Content, signature: Signature) -> Batch:
        picked = content.picked.get(signature.digest)
        if picked is None:
            frame = content.frame
            absent = [name for name in (*signature.numbers, *signature.texts) if name not in frame.columns]
            if absent:
                raise FeatureSourceError(f"feature file {self._path.name} has no column {', '.join(map(repr, absent))}")
            picked = Batch(self._matrix(frame, signature.numbers), _texts(frame, signature.texts))
            content.picked[signature.digest] = picked
            content.signatures.append(signature)
        return picked

    def _matrix(self, frame: Any, names: Sequence[str]) -> Any:
        matrix = np.full((frame.height + 1, len(names)), np.nan)
        for position, name in enumerate(names):
            if not frame[name].dtype.is_numeric():
                raise FeatureSourceError(f"feature file {self._path.name}: column {name!r} is not numeric")
            matrix[:-1, position] = frame[name].to_numpy()
        return matrix


def _texts(frame: Any, names: Sequence[str]) -> Any:
    import polars as pl  # noqa: PLC0415

    words = np.full((frame.height + 1, len(names)), None, dtype=np.object_)
    for position, name in enumerate(names):
        words[:-1, position] = frame[name].cast(pl.String).to_list()
    return words
