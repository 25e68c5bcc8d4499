"""Which calls are traced, and the spans that wait to be sent."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.metrics_core import Metric

from serving.control import State, TraceChoice
from serving.settings import TraceSettings
from serving.telemetry.exposition import counter, gauge
from serving.telemetry.spans import Context, Incoming, Kind, Span, incoming, state_in

UNLIMITED = -1


class Sampling:
    """Calls that come with a context are traced when that says so, if such contexts are followed; of the others each by
    chance, and no more of them than `left`. Off: none. What operators chose at run time stands in place of the
    settings; a new choice, and a start, counts anew. `chance`: uniform in [0, 1)."""

    def __init__(self, settings: TraceSettings, chance: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._chance = chance
        self._choice = TraceChoice()
        self.is_on = True
        self.share = settings.share
        self.left = UNLIMITED

    def choose(self, choice: TraceChoice) -> None:
        if choice == self._choice:
            return
        self._choice = choice
        self.is_on = choice.is_on is not False
        self.share = self._settings.share if choice.share is None else choice.share
        self.left = UNLIMITED if choice.count is None else choice.count

    def follow(self, state: State) -> None:
        """For `Publishing.watch`."""
        self.choose(state.traces)

    def takes(self, came: Incoming | None) -> bool:
        if not self.is_on:
            return False
        if came is not None:
            return came.sampled
        if not self.left or self._chance() >= self.share:
            return False
        self.left -= self.left > 0
        return True


class Tracer:
    """Begins the spans of calls, and keeps those that have ended, `max_spans` at most: what comes when there is no room
    is dropped and counted. `take` may be called from another thread, which `came` tells that there is something; all
    else is for the event loop. `clock`: Unix time in ns."""

    def __init__(self, settings: TraceSettings, sampling: Sampling, clock: Callable[[], int] = time.time_ns) -> None:
        self.sampling = sampling
        self.now_ns = clock
        self.dropped = 0
        self.came = threading.Event()
        self._follow = settings.follow
        self._max_spans = settings.max_spans
        self._ended: deque[Span] = deque()

    def serve(self, name: str, traceparent: str, tracestate: str = "") -> Span | None:
        """The span of a call that came with this context, or "", when it is traced."""
        came = incoming(traceparent) if traceparent and self._follow else None
        if not self.sampling.takes(came):
            return None
        parent = None if came is None else came.context._replace(state=state_in(tracestate))
        return self.begin(name, Kind.SERVER, parent)

    def begin(self, name: str, kind: Kind, parent: Context | None) -> Span:
        return Span(self, name, kind, parent)

    def keep(self, span: Span) -> None:
        if len(self._ended) >= self._max_spans:
            self.dropped += 1
            return
        self._ended.append(span)
        if len(self._ended) == 1:
            self.came.set()

    @property
    def waiting(self) -> int:
        return len(self._ended)

    def take(self, most: int) -> Sequence[Span]:
        """The oldest that wait; they are gone from here."""
        return [self._ended.popleft() for _ in range(min(most, len(self._ended)))]


def span_metrics(tracer: Tracer, sent: Callable[[], tuple[int, int]]) -> Iterable[Metric]:
    """`sent`: see SpanSending.counts."""
    took, lost = map(float, sent())
    outcomes = [("sent", took), ("failed", lost), ("dropped", float(tracer.dropped))]
    values = [({"outcome": outcome}, count) for outcome, count in outcomes]
    yield counter("tessera_spans", "Spans by what became of them: dropped for want of room.", values)
    yield gauge("tessera_spans_waiting", "Spans that wait to be sent.", [({}, float(tracer.waiting))])
