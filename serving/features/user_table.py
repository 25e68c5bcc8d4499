"""Users and their features in memory, made and let go on a thread while the event loop goes on.

What needs the interpreter's lock is done in slices with pauses between them; polars and numpy do the rest without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loaders.signature import Batch, Signature
from serving.features.source import FeatureSourceError

SLICE = 2_048
"""Of Python objects that are made or let go at a time: about half a millisecond."""
BLOCK = 65_536
"""Of numbers."""
PAUSE_S = 0.0002
"""Long enough for another thread to take the lock; a pause of 0 gives it back before anybody wakes up."""
SHARDS = 1_024
MASK = SHARDS - 1

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Row `i` says `words[codes[i]]`; the last word is None."""

    codes: npt.NDArray[np.uint32]
    words: npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Columns:
    """All rows in signature order, and one row of nothing after them."""

    numbers: npt.NDArray[np.float64]
    texts: Sequence[TextColumn]

    def take(self, rows: Positions) -> Batch:
        texts = np.empty((len(rows), len(self.texts)), dtype=np.object_)
        for place, column in enumerate(self.texts):
            texts[:, place] = column.words[column.codes[rows]]
        return Batch(self.numbers[rows], texts)


class UserTable:
    """`frame` is polars' and `ids` its column of ids, texts without gaps or repetitions. Look-ups are for the event
    loop; making a table, `pick` of many rows, and `release`, after which nothing else may be called, are for a thread.
    `borrowers`: who keeps a table from being released; its owner counts.
    """

    def __init__(self, frame: Any, ids: Any) -> None:
        self._frame = frame
        self._rows: int = frame.height
        # One dict of a million users would grow, and go, in one piece.
        self._shards: list[dict[str, int]] = [{} for _ in range(SHARDS)]
        self._picked: dict[bytes, Columns] = {}
        self.signatures: list[Signature] = []
        self.borrowers = 0
        for start, end in _slices(self._rows, SLICE):
            self._index(ids[start:end].to_list(), start)

    def __len__(self) -> int:
        return self._rows

    def positions(self, user_ids: Sequence[str]) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """The users' rows, and which of them are there; those that are not have the row of nothing."""
        shards, absent = self._shards, self._rows
        found = [shards[hash(user_id) & MASK].get(user_id, absent) for user_id in user_ids]
        rows = np.array(found, dtype=np.intp)
        return rows, rows < absent

    def picked(self, signature: Signature) -> Columns | None:
        return self._picked.get(signature.digest)

    def pick(self, signature: Signature) -> Columns:
        """The columns that a model reads, kept from then on. Raises FeatureSourceError naming those that are absent or
        no numbers."""
        picked = self._picked.get(signature.digest)
        if picked is None:
            names = (*signature.numbers, *signature.texts)
            absent = [name for name in names if name not in self._frame.columns]
            if absent:
                raise FeatureSourceError(f"has no column {', '.join(map(repr, absent))}")
            picked = Columns(self._matrix(signature.numbers), [self._text(name) for name in signature.texts])
            self._picked[signature.digest] = picked
            self.signatures.append(signature)
        return picked

    def release(self) -> None:
        """Let go of the memory piece by piece, which its end would do in one go."""
        for columns in self._picked.values():
            for column in columns.texts:
                for start, end in _slices(len(column.words), SLICE):
                    column.words[start:end] = None
            rows, width = columns.numbers.shape
            for start, _ in _slices(rows, BLOCK):
                columns.numbers.resize((max(0, rows - start - BLOCK), width), refcheck=False)
        for _, end in _slices(len(self._shards), 4):
            self._shards[end - 4 : end] = [{}] * 4
        for name in self._frame.columns:
            self._frame.drop_in_place(name)
            time.sleep(PAUSE_S)

    def _index(self, user_ids: Sequence[str], start: int) -> None:
        shards = self._shards
        for row, user_id in enumerate(user_ids, start):
            shards[hash(user_id) & MASK][user_id] = row

    def _matrix(self, names: Sequence[str]) -> npt.NDArray[np.float64]:
        matrix = np.empty((self._rows + 1, len(names)))
        matrix[-1] = np.nan
        for place, name in enumerate(names):
            column = self._frame[name]
            if not column.dtype.is_numeric():
                raise FeatureSourceError(f"column {name!r} is not numeric")
            for start, end in _slices(self._rows, BLOCK):
                matrix[start:end, place] = column[start:end].to_numpy()
        return matrix

    def _text(self, name: str) -> TextColumn:
        import polars as pl  # noqa: PLC0415 - only parties that are hosts need it

        column = self._frame[name].cast(pl.String)
        known = column.drop_nulls().unique().sort()
        words = np.full(len(known) + 1, None, dtype=np.object_)
        for start, end in _slices(len(known), SLICE):
            words[start:end] = known[start:end].to_list()
        codes = np.full(self._rows + 1, len(known), dtype=np.uint32)
        codes[:-1] = np.where(column.is_null().to_numpy(), len(known), known.search_sorted(column).to_numpy())
        return TextColumn(codes, words)


def _slices(count: int, size: int) -> Iterator[tuple[int, int]]:
    """With a pause between them."""
    for start in range(0, count, size):
        if start:
            time.sleep(PAUSE_S)
        yield start, min(start + size, count)
