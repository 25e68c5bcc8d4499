"""Leaves a party alone that does not answer, and finds out soon when it does again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum

from apps.app import PartyStatus
from loaders.loader import PartialSpec
from serving.peers.asked import Asked
from serving.peers.peer import PeerAnswer, failed
from serving.pool import ModelId
from serving.settings import BreakerSettings, Purpose
from serving.telemetry.histogram import ROWS, Histogram

_FAILURES = {PartyStatus.TIMEOUT, PartyStatus.UNREACHABLE}
"""What says that the party does not answer; a refusal is an answer."""


class BreakerState(Enum):
    """CLOSED: calls pass. OPEN: none does. HALF_OPEN: one is on its way to find out, the others are refused."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """CLOSED -> OPEN after so many failures in a row -> HALF_OPEN after a pause -> CLOSED by an answer, else OPEN.

    Whoever is admitted tells how it went, by one of `succeeded`, `failed` and `abandoned`, with what `admit` gave it.
    An answer is always news; the failure of a call that began before the breaker last opened is none, and changes
    nothing. `clock` is monotonic seconds.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._opened = 0.0
        self.state = BreakerState.CLOSED
        self.opened = 0
        """How often it opened."""

    def admit(self) -> int | None:
        """After how many openings a call goes; None when it may not."""
        if self.state is BreakerState.CLOSED:
            return self.opened
        if self.state is BreakerState.OPEN and self._clock() - self._opened >= self._settings.open_s:
            self.state = BreakerState.HALF_OPEN
            return self.opened
        return None

    def succeeded(self) -> None:
        self._failures = 0
        self.state = BreakerState.CLOSED

    def failed(self, admitted: int) -> None:
        if admitted != self.opened:
            return
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._settings.failures:
            self.opened += 1
            self.state, self._opened = BreakerState.OPEN, self._clock()

    def abandoned(self, admitted: int) -> None:
        """Nobody waited for the outcome. Another call may find out at once."""
        if self.state is BreakerState.HALF_OPEN and admitted == self.opened:
            self.state = BreakerState.OPEN


class Breaking:
    """Stands in front of one party. A call that was given less than `min_wait_s` says nothing about the party when it
    is late: impatient callers must not take it from the others."""

    def __init__(self, peer: Asked, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._peer = peer
        self._settings = settings
        self._clock = clock
        self.breaker = Breaker(settings, clock)
        self.sizes = Histogram(ROWS)
        """Of the batches that were asked for."""
        self.failed = 0
        """Calls that the party did not answer, or refused as a whole, or that it was not asked for."""

    async def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> PeerAnswer:
        admitted = self.breaker.admit()
        if admitted is None:
            self.failed += 1
            return failed(PartyStatus.UNREACHABLE, len(user_ids), wanted, "not asked: it did not answer the last calls")
        self.sizes.observe(len(user_ids))
        began = self._clock()
        told = False
        try:
            answer = await self._peer.infer(model, binding_digest, user_ids, wanted, deadline, purpose)
            self._learn(answer, admitted, began)
            told = True
            return answer
        finally:
            if not told:
                self._given_up(admitted, began)

    async def close(self) -> None:
        await self._peer.close()

    def _learn(self, answer: PeerAnswer, admitted: int, began: float) -> None:
        if not answer.reason:
            self.breaker.succeeded()
            return
        unanswered = _FAILURES.issuperset(answer.statuses)
        self.failed += unanswered or not answer.reasons
        if not unanswered:
            self.breaker.succeeded()
        elif PartyStatus.UNREACHABLE not in answer.statuses and self._clock() - began < self._settings.min_wait_s:
            self.breaker.abandoned(admitted)
        else:
            self.breaker.failed(admitted)

    def _given_up(self, admitted: int, began: float) -> None:
        if self._clock() - began < self._settings.min_wait_s:
            self.breaker.abandoned(admitted)
        else:
            self.failed += 1
            self.breaker.failed(admitted)
