"""Where the figures of a party are kept: one sum for all its replicas, and which outcomes are in it already."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.figures.counts import Cells, Subject

FEEDBACK_DAYS = 400
"""An outcome is taken this long after its answer; which ones have been taken is kept as long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is added to one cell, once for each `id`. `day`: of the answer, since 1970."""

    id: bytes
    day: int
    subject: Subject
    cell: int


class FigureStore(ABC):
    """Sums by subject. Thread-safe; every method waits for a disk or a network and raises OSError when that fails."""

    @abstractmethod
    def add(self, counted: Mapping[Subject, Cells]) -> None:
        """All of it, once, though where the network fails perhaps only with the next call; nothing when it raises."""

    @abstractmethod
    def take(self, outcomes: Sequence[Outcome], today: int) -> int:
        """Count those that were not taken before, durably; how many. Forgets those older than `FEEDBACK_DAYS`."""

    @abstractmethod
    def read(self) -> dict[Subject, Cells]: ...

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of files and connections."""


class MemoryFigureStore(FigureStore):
    """For tests and throw-away nodes: nothing survives."""

    def __init__(self) -> None:
        self._sums: dict[Subject, Cells] = {}
        self._taken: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def add(self, counted: Mapping[Subject, Cells]) -> None:
        with self._lock:
            for subject, cells in counted.items():
                self._add(subject, cells)

    def take(self, outcomes: Sequence[Outcome], today: int) -> int:
        with self._lock:
            self._taken = {id_: day for id_, day in self._taken.items() if day >= today - FEEDBACK_DAYS}
            fresh = {outcome.id: outcome for outcome in outcomes if outcome.id not in self._taken}
            for outcome in fresh.values():
                self._taken[outcome.id] = outcome.day
                self._add(outcome.subject, {outcome.cell: 1})
            return len(fresh)

    def read(self) -> dict[Subject, Cells]:
        with self._lock:
            return {subject: dict(cells) for subject, cells in self._sums.items()}

    def _add(self, subject: Subject, cells: Cells) -> None:
        sums = self._sums.setdefault(subject, {})
        for cell, count in cells.items():
            sums[cell] = sums.get(cell, 0) + count
