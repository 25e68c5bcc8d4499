"""How much one service, model, caller or party may ask: a rate and a number of calls at once.

The settings say so, and the wanted state in their place for the names that it has.

Rates are token buckets: `per_s` tokens come in a second, up to `burst`; a call of n rows takes n and is let in while
there is any left, so that a batch larger than the burst passes and is paid for afterwards. A rate that changes begins
with a full bucket. Calls at once are counted on while their limit changes.

Of a rate that nodes share each has a bucket of the whole, and a row takes as many tokens as there are nodes: when nodes
come and go, no bucket is filled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from serving.control import State
from serving.errors import DeadlineError, LimitError
from serving.limit_kind import LimitKind
from serving.settings import Limits, RateLimit, Settings
from serving.shared_counts import Pair, SharedCounts, Table, key_of

DEFAULT = "default"
"""The entry for names without one of their own; each such name has its own count."""
NOBODY = "anonymous"
"""All callers who do not say who they are, together: whoever leaves a token away gains nothing by that."""
MAX_NAMES = 10_000
"""Names that come from callers are counted apart up to so many; the longest silent is forgotten first."""
BUSY_RETRY_S = 0.05
CLOSED_RETRY_S = 1.0
"""Nobody knows when an operator opens again what a rate of 0 closes."""
UNLIMITED = RateLimit()
_MARGIN_S, _MARGIN_SHARE = 0.01, 0.1
"""Of the caller's time that hosts do not get, so that what stands in for them, or their names, arrive in time."""


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """One name with a limit, for people. `limit` is in force: from the wanted state when `is_set`, else `settings`."""

    kind: LimitKind
    name: str
    limit: RateLimit
    is_set: bool
    settings: RateLimit | None


class Gate:
    """One name's count, with that of the other workers where there are `counts`. `clock` is monotonic seconds, the same
    for all of them.

    What came into the bucket is a line in time, so only what was taken is kept (`_used`), and the least that this was
    ahead of the line before any call (`_low`): there the bucket was full. Of workers, what was taken is the sum, and
    the least is the least of all."""

    __slots__ = (
        "_burst",
        "_calls",
        "_clock",
        "_counts",
        "_least",
        "_limit",
        "_low",
        "_nodes",
        "_row",
        "_running",
        "_subject",
        "_tally",
        "_used",
    )

    def __init__(
        self,
        subject: str,
        limit: RateLimit,
        clock: Callable[[], float],
        counts: SharedCounts | None = None,
        nodes: int = 1,
    ) -> None:
        self._subject = subject
        self._clock = clock
        self._counts = counts
        self._running = 0
        self._calls = counts.pair(Table.CALLS, key_of(subject)) if counts is not None else None
        self._tally: Pair | None = None
        self._limit = limit
        self._refill()
        self.share(nodes)

    def follow(self, limit: RateLimit) -> None:
        """From now on this counts. Calls that run stay counted, whatever it says of them."""
        before, self._limit = self._limit, limit
        if (limit.per_s, limit.burst) != (before.per_s, before.burst):
            self._refill()
        self.share(self._nodes)

    def share(self, nodes: int) -> None:
        """So many live: what a rate that they share lets in here is this part of it."""
        self._nodes = nodes
        self._row = nodes if self._limit.across_nodes else 1
        self._least = min(self._row, self._burst)

    def _refill(self) -> None:
        """Workers that hear of a new rate later have a bucket of their own until then."""
        limit, counts = self._limit, self._counts
        if self._tally is not None:
            self._tally.release()
        self._burst = limit.burst_rows
        self._used, self._low, self._tally = 0.0, math.inf, None
        if counts is not None and limit.per_s:
            self._tally = counts.pair(Table.TALLIES, key_of(self._subject, limit.per_s, limit.burst))
        if self._tally is not None:
            self._used, self._low = self._tally.read()

    def forget(self) -> None:
        """No new call comes here; those that run may still leave."""
        for pair in (self._tally, self._calls):
            if pair is not None:
                pair.release()
        self._tally = self._calls = self._counts = None

    def take(self, rows: int) -> None:
        """Raises LimitError with the time after which a call passes again."""
        per_s = self._limit.per_s
        if per_s is None:
            return
        if not per_s:
            raise LimitError(f"{self._subject} is closed: its limit is 0 rows a second", CLOSED_RETRY_S)
        used, low = self._used, self._low
        if self._tally is not None:
            others, least = self._tally.of_others()
            used, low = used + others, min(low, least)
        ahead = used - self._clock() * per_s
        low = min(low, ahead)
        left = self._burst + low - ahead
        if left < self._least:
            whose = " at all nodes together" if self._limit.across_nodes else ""
            text = f"{self._subject} is limited to {per_s:g} rows a second{whose}"
            raise LimitError(text, (self._least - left) / per_s)
        self._used += rows * self._row
        self._low = low
        if self._tally is not None:
            self._tally.write(self._used, low)

    def enter(self) -> None:
        """Raises LimitError when there are as many calls as may be. A call is counted before it looks, so that there
        never are more; two that come at the same moment for the last place may both find it taken."""
        self._count(1)
        concurrent = self._limit.concurrent
        if concurrent is None:
            return
        others = self._calls.of_others()[0] if self._calls is not None else 0
        if self._running + others > concurrent:
            self._count(-1)
            raise LimitError(f"{self._subject} is limited to {concurrent} calls at once", BUSY_RETRY_S)

    def leave(self) -> None:
        self._count(-1)

    def _count(self, more: int) -> None:
        self._running += more
        if self._calls is not None:
            self._calls.write(self._running, math.inf)


class _Known(LRUCache[str, Gate]):
    """Gates by name. The longest silent go when there is no room."""

    def popitem(self) -> tuple[str, Gate]:
        name, gate = super().popitem()
        gate.forget()
        return name, gate


class Gates:
    """The gates of one kind of name. `settings`: what counts for names that the wanted state says nothing of."""

    def __init__(
        self,
        kind: LimitKind,
        settings: Mapping[str, RateLimit],
        clock: Callable[[], float],
        counts: SharedCounts | None = None,
    ) -> None:
        self._kind = kind
        self._settings = settings
        self._set: Mapping[str, RateLimit] = {}
        self._limits = settings
        self.any = bool(settings)
        self._clock = clock
        self._counts = counts
        self._nodes = 1
        self._gates = _Known(MAX_NAMES)

    def follow(self, wanted: Mapping[str, RateLimit]) -> None:
        """What the wanted state says."""
        if wanted == self._set:
            return
        self._set = wanted
        self._limits = {**self._settings, **wanted}
        self.any = bool(self._limits)
        for name in list(self._gates):
            self._gates[name].follow(self._limit_of(name) or UNLIMITED)

    def share(self, nodes: int) -> None:
        self._nodes = nodes
        for gate in self._gates.values():
            gate.share(nodes)

    def of(self, name: str) -> Gate | None:
        """None when nothing limits this name."""
        if not self.any or not name:
            return None
        gate = self._gates.get(name)
        if gate is None:
            limit = self._limit_of(name)
            if limit is None:
                return None
            subject = f"{self._kind.value} {name!r}"
            gate = self._gates[name] = Gate(subject, limit, self._clock, self._counts, self._nodes)
        return gate

    def statuses(self) -> list[LimitStatus]:
        """Of the names that have a limit of their own, and of the default, in order."""
        return [
            LimitStatus(self._kind, name, limit, name in self._set, self._settings.get(name))
            for name, limit in sorted(self._limits.items())
        ]

    def _limit_of(self, name: str) -> RateLimit | None:
        return self._limits.get(name) or self._limits.get(DEFAULT)


class Limiter:
    """All limits of a node; `limits` are the settings'. Names without a limit cost one look-up, and where no name has
    one, none. `parties`: the settings' limits of other parties. Workers with `counts` keep to them together: never are
    more calls let in at once, nor more rows than one worker alone would let in by more than a call of each other
    worker, of the same moment. That costs a limited call half a microsecond, and 0.15 for each other worker. Nodes keep
    to their limits each for itself, and to its part of those that they share."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        parties: Mapping[str, RateLimit] | None = None,
        counts: SharedCounts | None = None,
    ) -> None:
        self.limits = limits
        self.parties = Gates(LimitKind.PARTY, parties or {}, clock, counts)
        self.resources = Gates(LimitKind.RESOURCE, {}, clock, counts)
        self._services = Gates(LimitKind.SERVICE, limits.services, clock, counts)
        self._models = Gates(LimitKind.MODEL, limits.models, clock, counts)
        self._callers = Gates(LimitKind.CALLER, limits.callers, clock, counts)
        self._kinds = {
            LimitKind.SERVICE: self._services,
            LimitKind.MODEL: self._models,
            LimitKind.CALLER: self._callers,
            LimitKind.PARTY: self.parties,
            LimitKind.RESOURCE: self.resources,
        }
        self._calls_limited = self._callers.any or self._services.any

    def follow(self, state: State) -> None:
        """Have calls meet the limits of the wanted state from now on."""
        for kind, gates in self._kinds.items():
            gates.follow(state.limits.get(kind.value, {}))
        self._calls_limited = self._callers.any or self._services.any

    def share(self, nodes: int) -> None:
        """For `Replicas.watch_nodes`."""
        for gates in self._kinds.values():
            gates.share(nodes)

    def statuses(self) -> list[LimitStatus]:
        """All that is limited, by kind and name."""
        return [status for gates in self._kinds.values() for status in gates.statuses()]

    def take(self, service: str, caller: str, rows: int) -> None:
        """Count a call before anything is looked up for it; either name may be "". Raises LimitError."""
        if not self._calls_limited:
            return
        for gate in (self._callers.of(caller or NOBODY), self._services.of(service)):
            if gate is not None:
                gate.take(rows)

    def enter(self, service: str, caller: str) -> Sequence[Gate]:
        """Where a call now counts as running; whoever enters leaves each. Raises LimitError."""
        if not self._calls_limited:
            return ()
        return _entered((self._callers.of(caller or NOBODY), self._services.of(service)))

    def enter_model(self, model: str, rows: int) -> Sequence[Gate]:
        """The same around the execution of a model, whose rows are counted too. Raises LimitError."""
        gate = self._models.of(model)
        if gate is None:
            return ()
        gate.take(rows)
        return _entered((gate,))


def make_limiter(settings: Settings, counts: SharedCounts | None = None) -> Limiter:
    parties = {party: peer.limit for party, peer in settings.peers.items() if peer.limit is not None}
    return Limiter(settings.limits, parties=parties, counts=counts)


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
