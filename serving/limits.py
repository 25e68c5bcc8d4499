"""How much one service, model or caller may ask: a rate and a number of calls at once.

Rates are token buckets: `per_s` tokens come in a second, up to `burst`; a call of n rows takes n and is let in while
there is any left, so that a batch larger than the burst passes and is paid for afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from cachetools import LRUCache

from serving.errors import DeadlineError, LimitError
from serving.settings import Limits, RateLimit

DEFAULT = "default"
"""The entry for names without one of their own; each such name has its own count."""
NOBODY = "anonymous"
"""All callers who do not say who they are, together: whoever leaves a token away gains nothing by that."""
MAX_NAMES = 10_000
"""Names that come from callers are counted apart up to so many; the longest silent is forgotten first."""
BUSY_RETRY_S = 0.05
_MARGIN_S, _MARGIN_SHARE = 0.01, 0.1
"""Of the caller's time that hosts do not get, so that what stands in for them, or their names, arrive in time."""


class Gate:
    """One name's count. `clock` is monotonic seconds."""

    __slots__ = ("_at_s", "_clock", "_limit", "_running", "_subject", "_tokens")

    def __init__(self, subject: str, limit: RateLimit, clock: Callable[[], float]) -> None:
        self._subject = subject
        self._limit = limit
        self._clock = clock
        self._tokens = limit.burst_rows
        self._at_s = clock()
        self._running = 0

    def take(self, rows: int) -> None:
        """Raises LimitError with the time after which a call passes again."""
        per_s = self._limit.per_s
        if per_s is None:
            return
        now_s = self._clock()
        self._tokens = min(self._limit.burst_rows, self._tokens + (now_s - self._at_s) * per_s)
        self._at_s = now_s
        if self._tokens < 1:
            wait_s = (1 - self._tokens) / per_s
            raise LimitError(f"{self._subject} is limited to {per_s:g} rows a second", wait_s)
        self._tokens -= rows

    def enter(self) -> None:
        """Raises LimitError when there are as many calls as may be."""
        concurrent = self._limit.concurrent
        if concurrent is not None and self._running >= concurrent:
            raise LimitError(f"{self._subject} is limited to {concurrent} calls at once", BUSY_RETRY_S)
        self._running += 1

    def leave(self) -> None:
        self._running -= 1


class Gates:
    """The gates of one kind of name."""

    def __init__(self, kind: str, limits: Mapping[str, RateLimit], clock: Callable[[], float]) -> None:
        self._kind = kind
        self._limits = limits
        self.any = bool(limits)
        self._clock = clock
        self._gates: LRUCache[str, Gate] = LRUCache(MAX_NAMES)

    def of(self, name: str) -> Gate | None:
        """None when nothing limits this name."""
        if not self.any or not name:
            return None
        gate = self._gates.get(name)
        if gate is None:
            limit = self._limits.get(name) or self._limits.get(DEFAULT)
            if limit is None:
                return None
            gate = self._gates[name] = Gate(f"{self._kind} {name!r}", limit, self._clock)
        return gate


class Limiter:
    """All limits of a node. Names without a limit cost one look-up. `refused` is told of the service of each call that
    is over a limit of its service or caller."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        refused: Callable[[str, LimitError], None] = lambda service, error: None,
    ) -> None:
        self._refused = refused
        self._services = Gates("service", limits.services, clock)
        self._models = Gates("model", limits.models, clock)
        self._callers = Gates("caller", limits.callers, clock)
        self._calls_limited = self._callers.any or self._services.any

    def take(self, service: str, caller: str, rows: int) -> None:
        """Count a call before anything is looked up for it; either name may be "". Raises LimitError."""
        if not self._calls_limited:
            return
        try:
            for gate in (self._callers.of(caller or NOBODY), self._services.of(service)):
                if gate is not None:
                    gate.take(rows)
        except LimitError as error:
            self._refused(service, error)
            raise

    def enter(self, service: str, caller: str) -> Sequence[Gate]:
        """Where a call now counts as running; whoever enters leaves each. Raises LimitError."""
        if not self._calls_limited:
            return ()
        try:
            return _entered((self._callers.of(caller or NOBODY), self._services.of(service)))
        except LimitError as error:
            self._refused(service, error)
            raise

    def enter_model(self, model: str, rows: int) -> Sequence[Gate]:
        """The same around the execution of a model, whose rows are counted too. Raises LimitError."""
        gate = self._models.of(model)
        if gate is None:
            return ()
        gate.take(rows)
        return _entered((gate,))


def deadline_of(limits: Limits, rows: int, remaining_s: float | None, came_s: float) -> float:
    """Until when hosts may answer a call. Raises LimitError for too many rows, DeadlineError for no time at all."""
    if rows > limits.max_batch_rows:
        raise LimitError(f"{rows} rows in one call, the limit is {limits.max_batch_rows}")
    if remaining_s is None:
        return came_s + limits.peer_timeout_s
    if remaining_s <= 0:
        raise DeadlineError("the deadline was spent before the request was read")
    return came_s + min(limits.peer_timeout_s, remaining_s - min(_MARGIN_S, _MARGIN_SHARE * remaining_s))


def leave(gates: Sequence[Gate]) -> None:
    for gate in gates:
        gate.leave()


def _entered(gates: Sequence[Gate | None]) -> Sequence[Gate]:
    """All of them or, when one is full, none."""
    entered: list[Gate] = []
    try:
        for gate in gates:
            if gate is not None:
                gate.enter()
                entered.append(gate)
    except LimitError:
        leave(entered)
        raise
    return entered
