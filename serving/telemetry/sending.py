"""Sends spans from a thread of its own: a collector that is slow or away holds up no call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.telemetry.spans import Span
from serving.telemetry.tracer import Tracer

logger = logging.getLogger(__name__)

LINGER_S = 0.2
"""For others to come after the first."""
PAUSE_S = 10.0
"""After a sending that failed."""
BATCH = 512
STOP_S = 2.0
"""What is left to send gets this long when the node stops; the thread dies with the process."""


class Export(Protocol):
    """Hands spans to a collector. Each method may block for as long as its settings say; none raises."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Whether it took them; they are not sent again."""
        ...

    def close(self) -> None:
        """A `send` that waits to try again ends soon, and none follows."""


class MemoryExport:
    """Keeps what is sent, while `takes`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.takes = True

    def send(self, spans: Sequence[Span]) -> bool:
        if self.takes:
            self.spans += spans
        return self.takes

    def close(self) -> None:
        self.takes = False


class SpanSending:
    """`start` once, `stop` once. `pause`: for so many seconds, or until the event is set."""

    def __init__(
        self, tracer: Tracer, export: Export, pause: Callable[[threading.Event, float], object] = threading.Event.wait
    ) -> None:
        self._tracer = tracer
        self._export = export
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._sent = 0
        self._failed = 0

    def counts(self) -> tuple[int, int]:
        """How many spans the collector took, and how many it did not."""
        return self._sent, self._failed

    async def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        self._stopping.set()
        self._tracer.came.set()
        await asyncio.to_thread(self._thread.join, STOP_S)
        self._export.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._tracer.came.wait()
            self._tracer.came.clear()
            self._pause(self._stopping, LINGER_S)
            if not self._send():
                self._pause(self._stopping, PAUSE_S)
                self._tracer.came.set()
        self._send()

    def _send(self) -> bool:
        """All that waits, up to the first batch that the collector does not take."""
        while spans := self._tracer.take(BATCH):
            if not self._export.send(spans):
                self._failed += len(spans)
                logger.warning("the collector did not take %d spans; the next are sent in %g s", len(spans), PAUSE_S)
                return False
            self._sent += len(spans)
        return True
