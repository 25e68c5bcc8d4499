"""Requests by protocol, by the service and the version that answered them, and how they ended; and how many rows they
had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from prometheus_client.metrics_core import Metric

from apps.app import Response
from serving.routing import Target
from serving.telemetry.exposition import Labels, counter, histogram
from serving.telemetry.histogram import ROWS, Histogram
from serving.transport import Code

MAX_VARIANTS = 1_024
MAX_ENDED = 4 * MAX_VARIANTS
"""Versions come and go; what has not been added to for longest is forgotten first."""

Subject = tuple[str, str, str]
"""Protocol, service and variant (`model:version`); a name is "" where a call did not get so far."""

K = TypeVar("K")
V = TypeVar("V")


class Call(Protocol):
    """By its protocol, as figures call it."""

    protocol: str


class Repeats:
    """How often one variant's stored answers were repeated."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = 0


class Served:
    """Used from the event loop alone. `single` counts calls of one row, which are far more than the others in
    `rows`."""

    __slots__ = ("_answered", "_ended", "_repeats", "rows", "single")

    def __init__(self) -> None:
        self._answered: dict[tuple[str, Target], int] = {}
        self._ended: dict[tuple[Subject, Code], int] = {}
        self._repeats: dict[Subject, Repeats] = {}
        self.rows = Histogram(ROWS)
        self.single = 0

    def answered(self, calls: Sequence[Call], target: Target) -> None:
        """That one variant answered together."""
        if len(calls) == 1:
            self._add((calls[0].protocol, target), 1)
        else:
            for protocol, count in Counter([call.protocol for call in calls]).items():
                self._add((protocol, target), count)

    def repeats(self, protocol: str, service: str, response: Response) -> Repeats:
        """Where to count that an answer is repeated. Its variant is "" when its rows met several."""
        subject = (protocol, service, _variant_in(response))
        found = self._repeats.pop(subject, None) or Repeats()
        _put(self._repeats, subject, found, MAX_VARIANTS)
        return found

    def count(self, subject: Subject, code: Code, calls: int = 1) -> None:
        """Names must be known ones: what callers invent is not counted apart."""
        _put(self._ended, (subject, code), self._ended.pop((subject, code), 0) + calls, MAX_ENDED)

    def ended(self) -> Counter[tuple[Subject, Code]]:
        """Of all calls that were not repeats."""
        ended = Counter(self._ended)
        for (protocol, target), calls in self._answered.items():
            ended[(protocol, target.service, variant_of(target)), Code.OK] += calls
        return ended

    def repeated(self) -> dict[Subject, int]:
        return {subject: one.calls for subject, one in self._repeats.items()}

    def _add(self, key: tuple[str, Target], calls: int) -> None:
        try:
            self._answered[key] += calls
        except KeyError:
            if len(self._answered) >= MAX_VARIANTS:  # revisions come and go
                self._fold()
            self._answered[key] = calls

    def _fold(self) -> None:
        answered, self._answered = self._answered, {}
        for (protocol, target), calls in answered.items():
            self.count((protocol, target.service, variant_of(target)), Code.OK, calls)


def variant_of(target: Target) -> str:
    return target.variant or f"{target.model.model}:{target.model.version}"


def _variant_in(response: Response) -> str:
    variants = set(response.variants) or {f"{response.model}:{response.version}"}
    return variants.pop() if len(variants) == 1 else ""


def _put(kept: dict[K, V], key: K, value: V, most: int) -> None:
    """At the end, for which the first may have to go."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value


def served_metrics(served: Served) -> Iterable[Metric]:
    executed = [(_labels(subject, code, "none"), float(calls)) for (subject, code), calls in served.ended().items()]
    repeated = [(_labels(subject, Code.OK, "l1"), float(calls)) for subject, calls in served.repeated().items()]
    about = "Requests for scores, once for each variant they met; l1: answered from the result cache."
    yield counter("tessera_requests", about, [*executed, *repeated])
    rows = served.rows.with_more(1, served.single)
    yield histogram("tessera_request_rows", "Rows of a request, without repeats.", [({}, rows)])


def _labels(subject: Subject, code: Code, cache: str) -> Labels:
    protocol, service, variant = subject
    return {"protocol": protocol, "service": service, "variant": variant, "code": code.name, "cache": cache}
