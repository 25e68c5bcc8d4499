"""Runs halves that take long on threads of their own, so that nobody else waits for them on the event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from loaders.loader import Outputs, Servable
from loaders.signature import Batch
from serving.errors import LimitError

_MIN_RETRY_S = 0.01


class ModelThreads:
    """At most `max_waiting` batches run or wait; more are refused. `threads`: 0 for all cores but one. `clock` is
    monotonic seconds."""

    def __init__(self, threads: int = 0, max_waiting: int = 64, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = ThreadPoolExecutor(threads or max(1, (os.cpu_count() or 1) - 1), "model")
        self._max_waiting = max_waiting
        self._clock = clock
        self._last_s = 0.0
        self.waiting = 0

    def run(self, servable: Servable, batch: Batch) -> asyncio.Future[Outputs]:
        """The outputs, or what `predict` raises. Cancelled while it waits, it does not run. Raises LimitError with the
        time after which there may be room."""
        if self.waiting >= self._max_waiting:
            retry_s = max(_MIN_RETRY_S, self._last_s)
            raise LimitError(f"{self.waiting} batches already run or wait for models that take long", retry_s)
        running = asyncio.get_running_loop().run_in_executor(self._threads, servable.predict, batch)
        self.waiting += 1
        running.add_done_callback(partial(self._ended, self._clock()))
        return running

    async def stop(self) -> None:
        """What waits is dropped; what runs is waited for."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _ended(self, began: float, _: asyncio.Future[Outputs]) -> None:
        self.waiting -= 1
        self._last_s = self._clock() - began
