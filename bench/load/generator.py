"""The two loops. They know neither gRPC nor the wall clock: both are given."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

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
    or is overloaded shows it (no coordinated omission). What is unanswered `drain_s` after the last call is abandoned,
    and so is all that is out when there is no room and none ends for as long.
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
                await _in_time(room.wait(), clock, clock.now() + drain_s)
                if not room.is_set():
                    await _abandon(running)
            recorder.sent(intended, clock.now())
            task = asyncio.create_task(_call(send, number, intended, clock, recorder))
            running.add(task)
            task.add_done_callback(ended)
        if running:
            await _in_time(asyncio.wait(list(running)), clock, clock.now() + drain_s)
    finally:
        await _abandon(running)


async def _abandon(running: Iterable[asyncio.Task[None]]) -> None:
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


async def _in_time(event: Coroutine[Any, Any, Any], clock: Clock, until: float) -> None:
    """Wait for it, but not longer than this."""
    both = asyncio.create_task(event), asyncio.create_task(clock.sleep_until(until))
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()


async def closed_loop(send: Send, callers: int, end: float, clock: Clock, recorder: Recorder, drain_s: float) -> None:
    """`callers` at once, each calling again as soon as it has its reply, until `end`. What is unanswered `drain_s`
    after that is abandoned.

    A stall delays the calls that would have come after it instead of being seen by them: compare throughputs with
    this, and judge latencies by the open loop.
    """
    numbers = itertools.count()

    async def caller() -> None:
        while (begun := clock.now()) < end:
            recorder.sent(begun, begun)
            await _call(send, next(numbers), begun, clock, recorder)

    running = [asyncio.create_task(caller()) for _ in range(callers)]
    try:
        await _in_time(asyncio.wait(running), clock, end + drain_s)
    finally:
        await _abandon(running)
