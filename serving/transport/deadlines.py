"""One timer for all calls of a connection: setting a timer for each would cost more than some calls do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Protocol, cast

from serving.transport.streams import Stream

_SOONEST_S = 0.001
_FOREVER_S = 3.0e9
"""About a century."""


def bounded(timeout_s: float | None) -> float | None:
    """None, no deadline, for what nobody lives to see: neither timers nor the wire have numbers for it."""
    return None if timeout_s is None or timeout_s > _FOREVER_S else timeout_s


class Timed(Protocol):
    """A call that runs. `deadline` is on the loop's clock."""

    deadline: float | None

    def expire(self) -> None: ...


class Deadlines:
    """The timer goes off at the earliest deadline it was told of, though that call has mostly ended by then; it looks
    for calls that are due, and waits for the earliest of the others."""

    def __init__(self, loop: asyncio.AbstractEventLoop, streams: Mapping[int, Stream]) -> None:
        """`streams` of the connection: their owners are the calls that run."""
        self._loop = loop
        self._streams = streams
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """For a call on one of the streams, or one that will be there at once."""
        if deadline < self._at:
            self.cancel()
            self._at = deadline
            self._timer = self._loop.call_later(max(_SOONEST_S, deadline - self._loop.time()), self._look)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        self._at, self._timer = math.inf, None
        owners = [cast(Timed, stream.owner) for stream in self._streams.values() if stream.owner is not None]
        calls = [(call.deadline, call) for call in owners if call.deadline is not None]
        for deadline, call in calls:
            if deadline <= now:
                call.expire()
        later = [deadline for deadline, _ in calls if deadline > now]
        if later:
            self.watch(min(later))
