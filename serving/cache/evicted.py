"""How many entries the server of the shared level threw out to make room."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

from serving.cache.counts import Counts
from serving.cache.redis_connection import BusyError, RedisConnection, packed
from serving.transport.promise import Promise

EVERY_S = 10.0
TIMEOUT_S = 1.0
_INFO = packed("INFO", "stats")
_EVICTED = re.compile(rb"^evicted_keys:(\d+)", re.MULTILINE)


class Evicted:
    """Counts in `counts` what the server evicted since it was asked first, whoever caused it: every replica counts the
    same. A server that has begun anew counts from 0 again, and is followed. One that does not tell is no fault of the
    level: nothing is counted. `monotonic` measures pauses."""

    def __init__(
        self, connection: RedisConnection, counts: Counts, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._counts = counts
        self._monotonic = monotonic
        self._due_s = monotonic()
        self._last: int | None = None

    def ask(self) -> None:
        """After writes, without which nothing is evicted; at most once in `EVERY_S`. Nobody waits for the reply."""
        now_s = self._monotonic()
        if now_s < self._due_s:
            return
        self._due_s = now_s + EVERY_S
        with contextlib.suppress(BusyError):
            self._connection.send(_INFO, 1, TIMEOUT_S).add_done_callback(self._told)

    def _told(self, answer: Promise[list[Any]]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        [said] = answer.result()
        found = _EVICTED.search(said) if isinstance(said, bytes) else None
        if found is None:
            return
        evicted, last = int(found[1]), self._last
        self._last = evicted
        if last is not None:
            self._counts.evictions += evicted - last if evicted >= last else evicted
