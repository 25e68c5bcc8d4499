"""Requests of one stream, answered at once and told in order."""

from __future__ import annotations

import asyncio
from asyncio import Queue, Semaphore, Task
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")


async def in_order(
    requests: AsyncIterator[Asked], answer: Callable[[Asked], Coroutine[Any, Any, Told]], most: int
) -> AsyncGenerator[Told, None]:
    """The answer to every request, in the order of the requests, which are answered side by side.

    While `most` of them are being answered, or wait for one before them or to be taken, no further request is read.
    What reading the requests raises comes after the answers to those before; what `answer` raises comes in the place of
    the answer. Either ends the stream, and so does closing it: then everything that is still going on is cancelled and
    has ended.
    """
    room, told = Semaphore(most), Queue[Task[Told] | None]()
    running: set[Task[Told]] = set()

    async def read() -> None:
        try:
            await room.acquire()
            async for request in requests:
                task = asyncio.create_task(answer(request))
                running.add(task)
                told.put_nowait(task)
                await room.acquire()
        finally:
            told.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (task := await told.get()) is not None:
            yield await task
            running.discard(task)
            room.release()
        await reading
    finally:
        for one in (reading, *running):
            one.cancel()
        await asyncio.gather(reading, *running, return_exceptions=True)
