"""Loads beside which things happen, and how soon all was well again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from bench.load import LoadResult, Plan, load

Event = tuple[float, Callable[[], None]]
"""Seconds after the load began to run, and what happens then. It may block, as starting a node does."""


def beside(plan: Plan, events: Sequence[Event]) -> tuple[LoadResult, list[float]]:
    """The result, and when each event was over, on the machine's monotonic clock."""
    return asyncio.run(_beside(plan, events))


async def _beside(plan: Plan, events: Sequence[Event]) -> tuple[LoadResult, list[float]]:
    running = asyncio.ensure_future(load(plan))
    begun = time.monotonic()
    over: list[float] = []
    try:
        for due, happen in events:
            await asyncio.sleep(begun + due - time.monotonic())
            await asyncio.to_thread(happen)
            over.append(time.monotonic())
        return await running, over
    finally:
        running.cancel()
        await asyncio.wait((running,))


async def together(plans: Sequence[Plan]) -> list[LoadResult]:
    """Loads at the same time, each in processes of its own."""
    return await asyncio.gather(*(load(plan) for plan in plans))


def recovery_s(result: LoadResult, returned: float, until: float) -> float:
    """How long after `returned` calls still failed, looking no further than `until`."""
    last = returned
    for number, part in enumerate(result.slices):
        end = result.started + (number + 1) * result.slice_s
        if part.failed and returned < end <= until:
            last = end
    return round(last - returned, 2)
