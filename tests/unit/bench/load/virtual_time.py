"""Time that passes only when every task waits for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from typing import Any

_TURNS = 20  # of the loop, in which tasks that wait for nothing finish


class VirtualClock:
    """A generator's clock. `run` moves it to the next time somebody sleeps for."""

    def __init__(self) -> None:
        self._now = 100.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def tick(self, seconds: float) -> None:
        """The generator itself is busy for that long."""
        self._now += seconds

    async def sleep_until(self, when: float) -> None:
        if when <= self._now:
            await asyncio.sleep(0)
            return
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, next(self._order), sleeper))
        await sleeper

    async def sleep(self, seconds: float) -> None:
        await self.sleep_until(self._now + seconds)

    async def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        try:
            while not task.done():
                await self._turn(task)
            await task
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _turn(self, task: asyncio.Future[None]) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._sleepers = [item for item in self._sleepers if not item[2].done()]
        heapq.heapify(self._sleepers)
        if self._sleepers and not task.done():
            when, _, sleeper = heapq.heappop(self._sleepers)
            self._now = max(self._now, when)
            sleeper.set_result(None)
