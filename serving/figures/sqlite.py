"""The figures of a party in one file of its state folder, which the workers of a machine share.

SQLite, because an outcome and the sign that it was taken must be on disk together, or not at all, whenever the process
ends; and because the signs of a year need not fit into memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from serving.figures.counts import Cells, Subject
from serving.figures.store import FEEDBACK_DAYS, FigureStore, Outcome

FILE = "figures.db"
_WAIT_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sums (subject TEXT, cell INTEGER, count INTEGER, PRIMARY KEY (subject, cell)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taken (id BLOB PRIMARY KEY, day INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS taken_day ON taken (day);
"""
_ADD = "INSERT INTO sums VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"


class SqliteFigureStore(FigureStore):
    """Raises OSError when the file is none of ours or cannot be written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._path.touch(0o600)  # SQLite gives its other files the same mode
        # Whoever changes the journal's mode does not wait for others, but fails: one worker after the other.
        with self._translated(), self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._database = sqlite3.connect(self._path, _WAIT_S, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)

    def add(self, counted: Mapping[Subject, Cells]) -> None:
        rows = [(one.key(), cell, count) for one, cells in counted.items() for cell, count in cells.items()]
        with self._changing() as database:
            database.executemany(_ADD, rows)

    def take(self, outcomes: Sequence[Outcome], today: int) -> int:
        count = 0
        with self._changing() as database:
            database.execute("DELETE FROM taken WHERE day < ?", (today - FEEDBACK_DAYS,))
            for outcome in outcomes:
                new = database.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (outcome.id, outcome.day))
                if new.rowcount:
                    database.execute(_ADD, (outcome.subject.key(), outcome.cell, 1))
                    count += 1
        return count

    def read(self) -> dict[Subject, Cells]:
        found: dict[str, Cells] = {}
        with self._lock, self._translated():
            for key, cell, count in self._database.execute("SELECT subject, cell, count FROM sums"):
                found.setdefault(key, {})[cell] = count
        return {Subject.of(key): cells for key, cells in found.items()}

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; other processes wait for it."""
        with self._lock, self._translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                self._database.rollback()
                raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(f"{self._path.name} in the state folder cannot be used: {error}") from None
