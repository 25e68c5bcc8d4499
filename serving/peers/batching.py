"""Merges concurrent calls to one party into batch calls, without an artificial delay.

An idle party is called at the end of the loop's turn in which a request came, so that requests that came together go
together. While `in_flight` batches are on the wire the next ones collect.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from apps.app import PartyStatus
from loaders.loader import PartialSpec
from serving.peers.asked import Asked
from serving.peers.peer import LATE, PeerAnswer, failed
from serving.pool import ModelId
from serving.settings import BatchSettings, Purpose
from serving.telemetry.histogram import Histogram
from serving.transport.promise import Promise, settled

FULL = "too many users wait for it"
CLOSED = "this node is stopping"
_MIN_RETRY_S, _MIN_TIMER_S = 0.01, 0.001


@dataclass(frozen=True, slots=True)
class Lane:
    """What calls must have in common to be merged."""

    model: ModelId
    binding_digest: str
    purpose: Purpose
    wanted: PartialSpec


@dataclass(slots=True, eq=False)
class Waiter:
    lane: Lane
    user_ids: Sequence[str]
    deadline: float
    came: float
    promise: Promise[PeerAnswer]
    batch: Batch | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """A call on the wire. `awaited`: waiters that have not left."""

    waiters: list[Waiter]
    deadline: float
    sent: float
    call: Promise[PeerAnswer]
    awaited: int
    purpose: Purpose


@dataclass(slots=True)
class BatchFigures:
    """`wait_s`: how long requests waited for their batch; `call_s`: how long batches took."""

    batches: int = 0
    rows: int = 0
    refused: int = 0
    late: int = 0
    wait_s: Histogram = field(default_factory=Histogram)
    call_s: Histogram = field(default_factory=Histogram)


class Batcher:
    """Stands in front of one party. Every call ends in exactly one way: its own rows of a batch's answer; TIMEOUT at
    its deadline; REJECTED at once when `max_queued_rows` wait; cancelled. A batch carries the latest deadline of its
    calls, and is cancelled when nobody awaits it any more."""

    def __init__(self, peer: Asked, settings: BatchSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._peer = peer
        self._settings = settings
        self._clock = clock
        self._lanes: dict[Lane, deque[Waiter]] = {}
        self._waiting: set[Waiter] = set()
        self._batches: set[Batch] = set()
        self._queued_rows = 0
        self._flush_due = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._last_call_s = 0.0
        self.figures = BatchFigures()

    @property
    def queued_rows(self) -> int:
        return self._queued_rows

    def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> Promise[PeerAnswer]:
        now, rows = self._clock(), len(user_ids)
        answer: Promise[PeerAnswer] = Promise()
        refusal = self._refusal(rows, wanted, deadline - now)
        if refusal is not None:
            answer.set_result(refusal)
            return answer
        waiter = Waiter(Lane(model, binding_digest, purpose, wanted), user_ids, deadline, now, answer)
        answer.add_done_callback(partial(self._ended, waiter))
        self._enqueue(waiter, now)
        return answer

    def expire(self) -> None:
        """End the calls whose deadline has passed. The batcher's timer does it."""
        now = self._clock()
        for waiter in [one for one in self._waiting if one.deadline <= now]:
            self.figures.late += 1
            self._end(waiter, PartyStatus.TIMEOUT, LATE)
        self._timer = None
        if self._waiting:
            self._wake_at(min(one.deadline for one in self._waiting), now)

    async def close(self) -> None:
        """Calls on the wire are cancelled; who waits is told that the party cannot be asked; then it is
        closed too."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        calls = [batch.call for batch in self._batches]
        for waiter in list(self._waiting):
            self._end(waiter, PartyStatus.UNREACHABLE, CLOSED)
        for call in calls:
            call.cancel()
        await settled(calls)
        await self._peer.close()

    def _refusal(self, rows: int, wanted: PartialSpec, left_s: float) -> PeerAnswer | None:
        if left_s <= 0:
            return failed(PartyStatus.TIMEOUT, rows, wanted, LATE)
        if self._closed:
            return failed(PartyStatus.UNREACHABLE, rows, wanted, CLOSED)
        if self._queued_rows and self._queued_rows + rows > self._settings.max_queued_rows:
            self.figures.refused += 1
            answer = failed(PartyStatus.REJECTED, rows, wanted, FULL)
            return replace(answer, retry_after_s=max(_MIN_RETRY_S, self._last_call_s))
        return None

    def _enqueue(self, waiter: Waiter, now: float) -> None:
        self._lanes.setdefault(waiter.lane, deque()).append(waiter)
        self._waiting.add(waiter)
        self._queued_rows += len(waiter.user_ids)
        if self._timer is None or waiter.deadline < self._timer_at:
            self._wake_at(waiter.deadline, now)
        self._flush_soon()

    def _wake_at(self, deadline: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(max(_MIN_TIMER_S, deadline - now), self.expire)

    def _flush_soon(self) -> None:
        if not self._flush_due and self._lanes and len(self._batches) < self._settings.in_flight:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        while len(self._batches) < self._settings.in_flight:
            lane = self._next_lane()
            if lane is None:
                return
            waiters = self._taken(lane)
            if waiters:
                self._send(lane, waiters)

    def _next_lane(self) -> Lane | None:
        """Calls that answer come first. The others, which nobody waits for, never have all the calls there may be,
        unless there may be but one."""
        if not self._lanes:
            return None
        for lane in self._lanes:
            if lane.purpose is Purpose.INFER:
                return lane
        others = sum(batch.purpose is not Purpose.INFER for batch in self._batches)
        free = others < max(1, self._settings.in_flight - 1)
        return next(iter(self._lanes), None) if free else None

    def _taken(self, lane: Lane) -> list[Waiter]:
        """The next batch of a lane; lanes take turns. A call with more rows than a batch goes by itself."""
        queue, rows = self._lanes.pop(lane), 0
        taken: list[Waiter] = []
        while queue and (not taken or rows + len(queue[0].user_ids) <= self._settings.max_rows):
            waiter = queue.popleft()
            if waiter in self._waiting:
                taken.append(waiter)
                rows += len(waiter.user_ids)
        if queue:
            self._lanes[lane] = queue
        self._queued_rows -= rows
        return taken

    def _send(self, lane: Lane, waiters: list[Waiter]) -> None:
        now = self._clock()
        deadline = max(one.deadline for one in waiters)
        user_ids = [user_id for one in waiters for user_id in one.user_ids]
        call = self._peer.infer(lane.model, lane.binding_digest, user_ids, lane.wanted, deadline, lane.purpose)
        batch = Batch(waiters, deadline, now, Promise.of(call), len(waiters), lane.purpose)
        self._batches.add(batch)
        figures = self.figures
        figures.batches += 1
        figures.rows += len(user_ids)
        for waiter in waiters:
            waiter.batch = batch
            figures.wait_s.observe(now - waiter.came)
        batch.call.add_done_callback(partial(self._answered, batch))

    def _answered(self, batch: Batch, call: Promise[PeerAnswer]) -> None:
        self._batches.remove(batch)
        self._last_call_s = self._clock() - batch.sent
        self.figures.call_s.observe(self._last_call_s)
        waiters = [waiter for waiter in batch.waiters if waiter in self._waiting]
        if call.cancelled():
            for waiter in waiters:
                self._end(waiter, PartyStatus.UNREACHABLE, CLOSED)
        elif (error := call.exception()) is not None:
            self._waiting.difference_update(waiters)
            for waiter in waiters:
                waiter.promise.set_exception(error)
        else:
            self._share(batch.waiters, call.result())
        batch.waiters.clear()  # they know the batch: what it holds is to go at once, not when cycles are looked for
        self._flush_soon()

    def _share(self, waiters: Sequence[Waiter], answer: PeerAnswer) -> None:
        start = 0
        for waiter in waiters:
            end = start + len(waiter.user_ids)
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                waiter.promise.set_result(answer if len(waiters) == 1 else answer.part(start, end))
            start = end

    def _end(self, waiter: Waiter, status: PartyStatus, reason: str) -> None:
        self._leave(waiter)
        waiter.promise.set_result(failed(status, len(waiter.user_ids), waiter.lane.wanted, reason))

    def _ended(self, waiter: Waiter, answer: Promise[PeerAnswer]) -> None:
        if answer.cancelled():
            self._leave(waiter)

    def _leave(self, waiter: Waiter) -> None:
        """Nobody awaits it any more; what was only for it ends."""
        if waiter not in self._waiting:
            return
        self._waiting.remove(waiter)
        batch = waiter.batch
        if batch is None:
            self._drop(waiter)
            return
        batch.awaited -= 1
        # At its deadline the call ends by itself, and says that it was late.
        if not batch.awaited and self._clock() < batch.deadline:
            batch.call.cancel()

    def _drop(self, waiter: Waiter) -> None:
        queue = self._lanes[waiter.lane]
        queue.remove(waiter)
        self._queued_rows -= len(waiter.user_ids)
        if not queue:
            del self._lanes[waiter.lane]
