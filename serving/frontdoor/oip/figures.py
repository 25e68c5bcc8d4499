"""What ModelStatistics shows: figures of each version, of all workers of a node together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from serving.telemetry.worker_files import Told

Named = tuple[str, str]
"""The name that the caller used, and the version that answered."""


@dataclass(slots=True)
class Figures:
    """Of one version, for ModelStatistics. Durations in nanoseconds; hits of the result cache are not executions."""

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    hits: int = 0
    hits_ns: int = 0
    rows: int = 0
    executions: int = 0
    last_ms: int = 0
    batches: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By number of rows: executions, and how long they took together."""

    def executed(self, rows: int, took_ns: int) -> None:
        self.succeeded += 1
        self.succeeded_ns += took_ns
        self.executions += 1
        self.rows += rows
        count, total_ns = self.batches.get(rows, (0, 0))
        self.batches[rows] = (count + 1, total_ns + took_ns)
        self.last_ms = time.time_ns() // 1_000_000

    def add(self, other: Figures) -> None:
        self.succeeded += other.succeeded
        self.succeeded_ns += other.succeeded_ns
        self.failed += other.failed
        self.failed_ns += other.failed_ns
        self.hits += other.hits
        self.hits_ns += other.hits_ns
        self.rows += other.rows
        self.executions += other.executions
        self.last_ms = max(self.last_ms, other.last_ms)
        for rows, (count, took_ns) in other.batches.items():
            known, known_ns = self.batches.get(rows, (0, 0))
            self.batches[rows] = (known + count, known_ns + took_ns)


_Figures = list[tuple[Named, Figures]]
_DECODER = msgspec.json.Decoder(_Figures)


def encoded(figures: Mapping[Named, Figures]) -> bytes:
    """For the other workers."""
    return msgspec.json.encode(list(figures.items()))


def summed(figures: Mapping[Named, Figures], others: Iterable[Told]) -> dict[Named, Figures]:
    """With what the other workers have told."""
    total: dict[Named, Figures] = {}
    for told in (list(figures.items()), *map(_figures, others)):
        for named, one in told:
            total.setdefault(named, Figures()).add(one)
    return total


def _figures(told: Told) -> _Figures:
    with suppress(msgspec.MsgspecError):  # of another version
        return _DECODER.decode(told.said)
    return []
