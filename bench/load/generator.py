"""The two loops. They know neither gRPC nor the wall clock: both are given."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable

from bench.load.pace import Clock
from bench.load.recorder import Recorder
from bench.load.results import UNANSWERED

Send = Callable[[int], Awaitable[str]]
"""Makes the call of this number; returns its outcome (see results.py). Never raises."""

_BURST = 64
"""Calls that leave in one turn of the loop, so that replies are read even while the generator catches up."""


async def open_loop(
    send: Send, due: Iterable[float], clock: Clock, recorder: Recorder, max_in_flight: int, drain_s: float
) -> None:
    """One call at every time of `due` (of `clock`), without waiting for replies.

    Latency counts from the intended time. A call that must wait because the generator is behind, or because
    `max_in_flight` calls are out, has been waiting since it was due, as a user would have been; so a server that stalls
    or is overloaded shows it (no coordinated omission). What is unanswered `drain_s` after the last call is abandoned.
    """
    running: set[asyncio.Task[None]] = set()
    room = asyncio.Event()

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        room.set()

    try:
        for number, intended in enumerate(due):
            if intended > clock.now():
                await clock.sleep_until(intended)
            elif number % _BURST == 0:
                await asyncio.sleep(0)
            while len(running) >= max_in_flight:
                room.clear()
                await room.wait()
            recorder.sent(intended, clock.now())
            task = asyncio.create_task(_call(send, number, intended, clock, recorder))
            running.add(task)
            task.add_done_callback(ended)
        await _drain(running, clock, drain_s)
    finally:
        left = list(running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _call(send: Send, number: int, intended: float, clock: Clock, recorder: Recorder) -> None:
    outcome = UNANSWERED
    try:
        outcome = await send(number)
    finally:
        recorder.ended(intended, clock.now(), outcome)


async def _drain(running: set[asyncio.Task[None]], clock: Clock, drain_s: float) -> None:
    """Wait for the answers, but not longer than this."""
    if running:
        patience = asyncio.create_task(clock.sleep_until(clock.now() + drain_s))
        answers = asyncio.create_task(asyncio.wait(list(running)))
        await asyncio.wait((answers, patience), return_when=asyncio.FIRST_COMPLETED)
        for task in (answers, patience):
            task.cancel()


async def closed_loop(send: Send, callers: int, end: float, clock: Clock, recorder: Recorder) -> None:
    """`callers` at once, each calling again as soon as it has its reply, until `end`.

    A stall delays the calls that would have come after it instead of being seen by them: compare throughputs with
    this, and judge latencies by the open loop.
    """
    numbers = itertools.count()

    async def caller() -> None:
        while (begun := clock.now()) < end:
            recorder.sent(begun, begun)
            outcome = await send(next(numbers))
            recorder.ended(begun, clock.now(), outcome)

    await asyncio.gather(*(caller() for _ in range(callers)))
