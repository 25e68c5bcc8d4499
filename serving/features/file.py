"""Features from a CSV or Parquet file, held in memory and read again when the file changes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loaders.signature import Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError, LookUp
from serving.features.user_table import Columns, UserTable

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Content:
    """The file as it was at `stamp`: modification time in ns, size."""

    stamp: tuple[int, int]
    users: UserTable


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
        self._lock = threading.Lock()

    async def open(self) -> None:
        self._content = await asyncio.to_thread(self._read)
        self._look_at_s = self._clock() + CHECK_EVERY_S

    def check(self, signature: Signature) -> None:
        with self._borrowed() as users:
            self._pick(users, signature)

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        look_up = self.at_hand(signature)
        while look_up is None:  # all rows of a large file: not on the event loop
            await asyncio.to_thread(self.check, signature)
            look_up = self.at_hand(signature)
        return look_up(user_ids)

    def at_hand(self, signature: Signature) -> LookUp | None:
        self._refresh()
        users = self._opened().users
        columns = users.picked(signature)
        return None if columns is None else partial(self._taken, users, columns)

    def _taken(self, users: UserTable, columns: Columns, user_ids: Sequence[str]) -> FeatureRows:
        rows, found = users.positions(user_ids)
        return FeatureRows(columns.take(rows), found, self._max_age_s)

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

    @contextmanager
    def _borrowed(self) -> Iterator[UserTable]:
        """For threads: what is there now, which stays whole meanwhile."""
        with self._lock:
            users = self._opened().users
            users.borrowers += 1
        try:
            yield users
        finally:
            with self._lock:
                users.borrowers -= 1

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
            content = await asyncio.to_thread(self._read, list(before.users.signatures))
            logger.info("feature file %s has changed, %d rows", self._path.name, len(content.users))
            with self._lock:
                self._content, borrowers = content, before.users.borrowers
            if not borrowers:
                await asyncio.to_thread(before.users.release)
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
        users = UserTable(frame, self._ids(frame))
        for signature in signatures:
            self._pick(users, signature)
        return _Content(stamp, users)

    def _ids(self, frame: Any) -> Any:
        import polars as pl  # noqa: PLC0415

        if self._id_column not in frame.columns:
            raise FeatureSourceError(f"feature file {self._path} has no column {self._id_column!r} for the user id")
        column = frame[self._id_column]
        if column.dtype != pl.String and not column.dtype.is_integer():
            raise FeatureSourceError(
                f"feature file {self._path}: column {self._id_column!r} holds {column.dtype}, not ids"
            )
        if column.null_count() or column.n_unique() != len(column):
            raise FeatureSourceError(f"feature file {self._path}: column {self._id_column!r} has empty or repeated ids")
        return column.cast(pl.String)

    def _pick(self, users: UserTable, signature: Signature) -> Columns:
        try:
            return users.pick(signature)
        except FeatureSourceError as error:
            raise FeatureSourceError(f"feature file {self._path.name}: {error}") from None
