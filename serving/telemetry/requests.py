"""Figures of the requests of each method: how many, how they ended, how long they took, how many run now."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from serving.telemetry.histogram import Histogram
from serving.transport import Code


class MethodFigures:
    """One method of one protocol. `began = start()`, then exactly one `finish(began, code)`."""

    __slots__ = ("_clock", "running", "seconds")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.running = 0
        self.seconds: dict[Code, Histogram] = {Code.OK: Histogram()}

    def start(self) -> float:
        self.running += 1
        return self._clock()

    def finish(self, began: float, code: Code = Code.OK) -> None:
        self.running -= 1
        seconds = self.seconds.get(code)
        if seconds is None:
            seconds = self.seconds[code] = Histogram()
        seconds.observe(self._clock() - began)


class RequestFigures:
    """The methods by protocol and name, as callers name them. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self.methods: dict[tuple[str, str], MethodFigures] = {}

    def of(self, protocol: str, method: str) -> MethodFigures:
        return self.methods.setdefault((protocol, method), MethodFigures(self._clock))
