"""The audit log: who changed what, from what to what. JSON lines in `audit.log` of the state folder, appended only.

A change is written down before it is tried, and its end after it; one that cannot be written down is refused. Replicas
of one folder share the file: every record is one write.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from serving.errors import ConflictError
from serving.uninterrupted import to_the_end

logger = logging.getLogger(__name__)

FILE = "audit.log"
MAX_TEXT = 4_096
"""Characters of a subject or reason that are written down: whoever may ask for a change may name what he likes."""


class Event(Enum):
    """A change is asked for, then done or refused. LEFT: its caller went away, and the state says what came of it.
    One that has no end was cut off by the end of the process."""

    ASKED = "asked"
    DONE = "done"
    REFUSED = "refused"
    LEFT = "left"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """`id` joins the lines of one change. `time_s`: Unix time. `state`: the subject's, before (asked), after (done,
    left)."""

    time_s: float
    id: str
    event: Event
    who: str
    what: str
    subject: str
    state: Any = None
    reason: str = ""


class AuditLog:
    """`clock` is Unix seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / FILE
        self._clock = clock

    @asynccontextmanager
    async def change(
        self, who: str, what: str, subject: str, state: Callable[[], object] = lambda: None
    ) -> AsyncIterator[None]:
        """Around one change. `state` tells the subject's state whenever asked. Raises ConflictError, before anything
        has changed, when the log cannot be written."""
        id_ = secrets.token_hex(8)

        async def note(event: Event, kept: object = None, reason: str = "") -> None:
            record = Record(self._clock(), id_, event, who, what, subject[:MAX_TEXT], kept, reason[:MAX_TEXT])
            await asyncio.to_thread(self._append, msgspec.json.encode(record) + b"\n")

        try:
            await note(Event.ASKED, state())
        except OSError as error:
            raise ConflictError(f"nothing is changed: {FILE} cannot be written: {error.strerror}") from None
        try:
            yield
        except Exception as error:
            await self._end(note(Event.REFUSED, reason=str(error) or type(error).__name__))
            raise
        except asyncio.CancelledError:
            await self._end(note(Event.LEFT, state()))
            raise
        await self._end(note(Event.DONE, state()))

    async def _end(self, noted: Coroutine[Any, Any, None]) -> None:
        """The change has happened or not, whatever becomes of this line."""
        try:
            await to_the_end(noted)
        except OSError as error:
            logger.error("the end of a change is not in %s: %s", FILE, error.strerror)

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
