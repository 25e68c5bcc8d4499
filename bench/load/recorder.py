"""Counts and latencies of one run, and their sum over processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from bench.load.histogram import Latencies
from bench.load.results import OK, SLICE_S, LoadResult, Slice


@dataclass(frozen=True, slots=True)
class Window:
    """The times of a run, of one clock: warm-up from `start` to `measured`, then until `end`."""

    start: float
    measured: float
    end: float

    @property
    def duration_s(self) -> float:
        return self.end - self.measured

    def holds(self, when: float) -> bool:
        return self.measured <= when < self.end


@dataclass(slots=True)
class Recorder:
    """Told of every call when it leaves and when it ends."""

    window: Window
    outcomes: Counter[str] = field(default_factory=Counter)
    ok: Latencies = field(default_factory=Latencies)
    failed: Latencies = field(default_factory=Latencies)
    lateness: Latencies = field(default_factory=Latencies)
    answered: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    slices: dict[int, list[int]] = field(default_factory=dict)

    def sent(self, intended: float, now: float) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.window.holds(intended):
            self.lateness.record(now - intended)

    def ended(self, intended: float, now: float, outcome: str) -> None:
        self.in_flight -= 1
        right = outcome == OK
        if right and self.window.holds(now):
            self.answered += 1
        number = int((now - self.window.start) / SLICE_S)
        counts = self.slices.get(number)
        if counts is None:
            counts = self.slices[number] = [0, 0]
        counts[0 if right else 1] += 1
        if self.window.holds(intended):
            self.outcomes[outcome] += 1
            (self.ok if right else self.failed).record(now - intended)

    def result(self, asked_per_s: float | None, generator_cpu_s: float = 0.0) -> LoadResult:
        """With `asked_per_s` the result of an open loop."""
        last = max(self.slices, default=-1)
        return LoadResult(
            mode="closed" if asked_per_s is None else "open",
            asked_per_s=asked_per_s,
            started=self.window.start,
            duration_s=self.window.duration_s,
            calls=self.outcomes.total(),
            outcomes=dict(sorted(self.outcomes.items())),
            ok_per_s=round(self.answered / self.window.duration_s, 2),
            latency_ms=self.ok.percentiles(),
            failed_latency_ms=self.failed.percentiles(),
            lateness_ms=None if asked_per_s is None else self.lateness.percentiles(),
            generator_cpu_s=round(generator_cpu_s, 4),
            most_in_flight=self.most_in_flight,
            slices=tuple(Slice(*self.slices.get(number, (0, 0))) for number in range(last + 1)),
            histograms={name: getattr(self, name).encode().decode() for name in ("ok", "failed", "lateness")},
        )


def merged(parts: Sequence[LoadResult]) -> LoadResult:
    """One result of several generators that ran at the same time. Percentiles come from the added histograms."""
    sums: dict[str, Latencies] = {}
    for name in ("ok", "failed", "lateness"):
        sums[name] = Latencies()
        for part in parts:
            sums[name].add(Latencies.decode(part.histograms[name].encode()))
    outcomes = sum((Counter(part.outcomes) for part in parts), Counter[str]())
    rows = zip_longest(*(part.slices for part in parts), fillvalue=Slice(0, 0))
    asked = [part.asked_per_s for part in parts if part.asked_per_s is not None]
    return LoadResult(
        mode=parts[0].mode,
        asked_per_s=sum(asked) if asked else None,
        started=parts[0].started,
        duration_s=parts[0].duration_s,
        calls=sum(part.calls for part in parts),
        outcomes=dict(sorted(outcomes.items())),
        ok_per_s=round(sum(part.ok_per_s for part in parts), 2),
        latency_ms=sums["ok"].percentiles(),
        failed_latency_ms=sums["failed"].percentiles(),
        lateness_ms=sums["lateness"].percentiles() if asked else None,
        generator_cpu_s=round(sum(part.generator_cpu_s for part in parts), 4),
        most_in_flight=sum(part.most_in_flight for part in parts),
        slices=tuple(Slice(sum(s.ok for s in row), sum(s.failed for s in row)) for row in rows),
        histograms={name: latencies.encode().decode() for name, latencies in sums.items()},
    )
