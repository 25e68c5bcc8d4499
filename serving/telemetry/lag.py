"""How late the event loop runs what is due: the time that one slow call takes from all others."""

from __future__ import annotations

import asyncio

from serving.telemetry.histogram import Histogram

EVERY_S = 0.1


class LoopLag:
    """Asks the loop to be called ten times a second and notes how much later it was."""

    def __init__(self) -> None:
        self.seconds = Histogram()
        self._due: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        self._wait(asyncio.get_running_loop())

    async def stop(self) -> None:
        if self._due is not None:
            self._due.cancel()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = loop.time() + EVERY_S
        self._due = loop.call_at(due_s, self._note, loop, due_s)

    def _note(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self.seconds.observe(max(0.0, loop.time() - due_s))
        self._wait(loop)
