"""Shadow variants: versions that run beside the ones that answer, and whose scores only the figures see.

A shadow begins when the answer is there, and nobody waits for it. While too many run, more are left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from apps.app import AppError, Request, Response
from loaders.signature import FeatureError
from serving.errors import TesseraError
from serving.figures.scores import Scores
from serving.routing import ServiceRoute, Target, VariantRoute

logger = logging.getLogger(__name__)

MAX_ROWS = 256
"""At once, so that shadows never fill the queues in which answers wait; a larger batch runs alone."""
QUIET_S = 60.0
"""Between warnings."""

Execute = Callable[[Target, Request], Awaitable[Response]]


class Comparing(Protocol):
    """Counts what a shadow would have answered."""

    def shadowed(self, service: str, variant: str, scores: Scores, answers: Scores, seconds: float) -> None: ...


class Shadows:
    """`execute` runs one version for the rows of a request. `clock` is monotonic seconds."""

    def __init__(self, execute: Execute, comparing: Comparing, clock: Callable[[], float]) -> None:
        self.left_out = 0
        """Calls for which there was no room, or whose shadow failed."""
        self._execute = execute
        self._comparing = comparing
        self._clock = clock
        self._quiet_until = float("-inf")
        self._rows = 0
        self._running: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        return len(self._running)

    def follow(self, route: ServiceRoute, request: Request, response: Response) -> None:
        """Begin the shadows of an answered request; returns at once."""
        for shadow in route.shadows:
            rows = [row for row, user in enumerate(request.user_ids) if route.is_in(shadow, user or request.case_id)]
            if not rows:
                continue
            if self._rows and self._rows + len(rows) > MAX_ROWS:
                self.left_out += 1
                continue
            part = request if len(rows) == request.rows else request.select(rows)
            task = asyncio.create_task(self._follow(route, shadow, part, response.scores[rows]))
            self._running.add(task)
            self._rows += len(rows)
            task.add_done_callback(partial(self._ended, len(rows)))

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _ended(self, rows: int, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._rows -= rows

    def _say(self, text: str) -> None:
        """Seldom: what fails for one call fails for many."""
        level = logging.DEBUG
        if self._clock() >= self._quiet_until:
            self._quiet_until, level = self._clock() + QUIET_S, logging.WARNING
        logger.log(level, "%s", text)

    async def _follow(self, route: ServiceRoute, shadow: VariantRoute, request: Request, answers: Scores) -> None:
        began = self._clock()
        try:
            response = await self._execute(route.target_of(shadow), request)
        except (TesseraError, FeatureError, AppError) as error:
            self.left_out += 1
            self._say(f"shadow {shadow.name} of service {route.service} is left out: {error}")
        except Exception:
            self.left_out += 1
            logger.exception("shadow %s of service %s failed", shadow.name, route.service)
        else:
            seconds = self._clock() - began
            self._comparing.shadowed(route.service, shadow.name, response.scores, answers, seconds)
