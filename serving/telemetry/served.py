"""Calls by the service and the version that answered them, and how they ended; and how many rows they had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from serving.routing import Target
from serving.telemetry.exposition import Labels, counter, histogram
from serving.telemetry.histogram import ROWS, Histogram
from serving.transport import Code

_MAX_TARGETS = 1_024

Ended = tuple[str, str, Code]
"""Service, variant (`model:version`) and code; a name is "" where a call did not get so far."""


class Served:
    """Used from the event loop alone. `single` counts calls of one row, which are far more than the others in `rows`;
    `repeated`, by service, calls that were answered from the result cache, which does not tell the version."""

    __slots__ = ("_answered", "_ended", "repeated", "rows", "single")

    def __init__(self) -> None:
        self._answered: dict[Target, int] = {}
        self._ended: Counter[Ended] = Counter()
        self.repeated: dict[str, int] = {}
        self.rows = Histogram(ROWS)
        self.single = 0

    def answered(self, target: Target, calls: int) -> None:
        try:
            self._answered[target] += calls
        except KeyError:
            if len(self._answered) >= _MAX_TARGETS:  # revisions come and go
                self._ended, self._answered = self.ended(), {}
            self._answered[target] = calls

    def repeat(self, service: str) -> None:
        try:
            self.repeated[service] += 1
        except KeyError:
            self.repeated[service] = 1

    def failed(self, service: str, variant: str, code: Code, calls: int = 1) -> None:
        """Names must be known ones: what callers invent is not counted apart."""
        self._ended[service, variant, code] += calls

    def ended(self) -> Counter[Ended]:
        """Of all calls that were not repeats."""
        ended = self._ended.copy()
        for target, calls in self._answered.items():
            ended[target.service, variant_of(target), Code.OK] += calls
        return ended


def variant_of(target: Target) -> str:
    return target.variant or f"{target.model.model}:{target.model.version}"


def served_metrics(served: Served) -> Iterable[Metric]:
    calls: list[tuple[Labels, float]] = [
        ({"service": service, "variant": variant, "code": code.name}, float(count))
        for (service, variant, code), count in sorted(served.ended().items())
    ]
    yield counter("tessera_service_requests", "Requests that were no repeats, once for each variant they met.", calls)
    repeats = [({"service": service}, float(count)) for service, count in served.repeated.items()]
    yield counter("tessera_service_repeats", "Requests that were answered from the result cache.", repeats)
    rows = served.rows.with_more(1, served.single)
    yield histogram("tessera_request_rows", "Rows of a request, without repeats.", [({}, rows)])
