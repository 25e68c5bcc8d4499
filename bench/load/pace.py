"""The generator's clock. Loop timers round to milliseconds, which would be most of a 0.1 ms latency."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from typing import Protocol

_MONOTONIC, _NONBLOCK, _ABSOLUTE = 1, 0o4000, 1


class Clock(Protocol):
    """Seconds of any one origin. One sleeper at a time."""

    def now(self) -> float: ...

    async def sleep_until(self, when: float) -> None:
        """Return at `when`, or after one turn of the loop when that is past."""


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSetting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("first", _Moment))


class LoopClock:
    """Sleeps with the loop's own timers: up to 1 ms late."""

    now = staticmethod(time.monotonic)

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self.now()))

    def close(self) -> None:
        """Holds nothing."""


class TimerClock:
    """Sleeps on a timerfd(2) that the loop watches: late by a turn of the loop only. Linux."""

    now = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._timer, self._fired)

    async def sleep_until(self, when: float) -> None:
        if when <= self.now():
            await asyncio.sleep(0)
            return
        seconds, part = divmod(when, 1.0)
        setting = _TimerSetting(_Moment(0, 0), _Moment(int(seconds), max(1, int(part * 1e9))))
        self._waiter = self._loop.create_future()
        self._libc.timerfd_settime(self._timer, _ABSOLUTE, ctypes.byref(setting), None)
        await self._waiter

    def _fired(self) -> None:
        os.read(self._timer, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        self._loop.remove_reader(self._timer)
        os.close(self._timer)


def best_clock() -> LoopClock | TimerClock:
    """The most punctual one of this system. Call it on the running loop."""
    return TimerClock() if sys.platform == "linux" else LoopClock()
