"""What the workers of a node tell each other of themselves: each in a file that it writes anew every second."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from serving.disk import remove_older

logger = logging.getLogger(__name__)

WRITE_S = 1.0
STALE_S = 5.0
"""The file of a worker that is gone."""
_LITTER_S = 12 * STALE_S


@dataclass(frozen=True, slots=True)
class Told:
    """By a worker; of those that have one name, the one that began last has the greatest generation."""

    name: str
    generation: str
    said: bytes


Others = Callable[[], Awaitable[Sequence[Told]]]
"""What the other workers have told last."""


@dataclass(frozen=True, slots=True)
class Teller:
    """A worker among those that share the folder; `generation` is greater than its predecessors'."""

    folder: Path
    name: str
    generation: str


class WorkerFile:
    """What one worker tells of one thing: `own` is asked for it, on the event loop. `clock` is Unix seconds; `pause`
    waits for some."""

    def __init__(
        self,
        topic: str,
        own: Callable[[], bytes],
        teller: Teller,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._topic = topic
        self._own = own
        self._path = teller.folder / f"{quote(teller.name, safe='')}@{teller.generation}.{topic}"
        self._clock = clock
        self._pause = pause
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def others(self) -> Sequence[Told]:
        """All but this one, as they were a second ago."""
        return await asyncio.to_thread(self._read)

    async def _keep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._write, self._own())
            except OSError as error:
                logger.error("figures cannot be shared with the other workers: %s", error)
            await self._pause(WRITE_S)

    def _write(self, said: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.draft")
        draft.write_bytes(said)
        os.utime(draft, (self._clock(), self._clock()))
        draft.replace(self._path)
        remove_older(self._path.parent, self._clock() - _LITTER_S)

    def _read(self) -> Sequence[Told]:
        found = []
        for path in self._path.parent.glob(f"*.{self._topic}"):
            name, _, generation = path.stem.partition("@")
            try:
                if path != self._path and path.stat().st_mtime > self._clock() - STALE_S:
                    found.append(Told(unquote(name), generation, path.read_bytes()))
            except OSError:
                continue  # gone meanwhile
        return found


class Telling:
    """The files of a worker, one for each thing, to be started and stopped. Without a `teller` it is alone, and tells
    nothing."""

    def __init__(self, teller: Teller | None) -> None:
        self.teller = teller
        self.files: list[WorkerFile] = []

    def tell(self, topic: str, own: Callable[[], bytes]) -> Others:
        """How to ask what the others have told of the same."""
        if self.teller is None:
            return nobody
        self.files.append(WorkerFile(topic, own, self.teller))
        return self.files[-1].others


async def nobody() -> Sequence[Told]:
    """The others of a worker that is alone."""
    return ()
