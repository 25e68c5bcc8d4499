"""The cache level in a Redis-protocol server, shared by replicas and restarts.

Reads are one MGET per batch and give up after `timeout_s`. Writes go through a bounded queue and never delay an answer.
When the server fails, the tier answers MISS without asking until a pause is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from serving.cache.circuit import Circuit
from serving.cache.codec import decode, encode
from serving.cache.counts import Counts
from serving.cache.tier import MISS, CacheTier, Entry, Found, Miss

CONNECTIONS = 16
WRITE_TIMEOUT_S = 1.0
"""For one batch of writes: nobody waits for it."""
PIPELINE = 64
"""Commands after which what is waiting makes another round trip: building one keeps the event loop for 20 µs."""
QUEUE_BATCHES = 1_000
"""Batches waiting to be written; the oldest goes when there are more."""
JITTER = 0.1
"""Entries written together expire within this share of their time, never later than they say."""

Writes = Mapping[bytes, Entry] | Sequence[bytes]
"""Entries to store, or keys to drop."""


class RedisTier(CacheTier):
    """`clock` is Unix seconds, `monotonic` measures pauses. Never raises; `counts` and the log say what went wrong."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        pool = ConnectionPool.from_url(
            url,
            socket_timeout=WRITE_TIMEOUT_S,
            socket_connect_timeout=WRITE_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the circuit decides when to try again
            driver_info=None,  # else each connection looks up its own version on disk
        )
        self._client = Redis.from_pool(pool)
        # Not a BlockingConnectionPool: callers that give up would wait for its lock, past their timeout.
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._timeout_s = timeout_s
        self._clock = clock
        self._circuit = Circuit("the shared cache", monotonic)
        self._waiting: deque[Writes | asyncio.Future[None]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()
        self.counts = Counts()

    @property
    def is_down(self) -> bool:
        return self._circuit.is_open

    async def get_many(self, keys: Sequence[bytes]) -> list[Found]:
        values = await self._ask(lambda: self._client.mget(keys), self._timeout_s) if keys else None
        if values is None:
            self.counts.misses += len(keys)
            return [MISS] * len(keys)
        now_s = self._clock()
        found = [_usable(value, now_s) for value in values]
        misses = found.count(MISS)
        self.counts.misses += misses
        self.counts.hits += len(found) - misses
        return found

    async def put_many(self, entries: Mapping[bytes, Entry]) -> None:
        if entries:
            self._enqueue(dict(entries))

    async def drop_many(self, keys: Sequence[bytes]) -> None:
        """Returns when the keys are gone, or the server has failed: then their own TTL is what ends them."""
        if keys:
            self._enqueue(list(keys))
            await self.flush()

    async def flush(self) -> None:
        """Returns when everything put so far is written or given up, whatever is put meanwhile."""
        if self._writer is not None and not self._writer.done():
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append(reached)
            await reached

    async def close(self) -> None:
        """Waits a moment for what is still to be written."""
        if self._writer is not None:
            _, late = await asyncio.wait({self._writer}, timeout=WRITE_TIMEOUT_S)
            for writer in late:
                writer.cancel()
                await asyncio.wait({writer})
            while self._waiting:
                self._give_up()
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=2 * WRITE_TIMEOUT_S)
        await self._client.aclose()

    def _enqueue(self, writes: Writes) -> None:
        while len(self._waiting) >= QUEUE_BATCHES:
            self._give_up()
        self._waiting.append(writes)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    def _give_up(self) -> None:
        oldest = self._waiting.popleft()
        if isinstance(oldest, asyncio.Future):
            _reach(oldest)
        else:
            self.counts.shed += len(oldest)

    async def _write(self) -> None:
        while self._waiting:
            pipeline = self._client.pipeline(transaction=False)
            marks: list[asyncio.Future[None]] = []
            stores = 0
            while self._waiting and len(pipeline) < PIPELINE:
                writes = self._waiting.popleft()
                if isinstance(writes, asyncio.Future):
                    marks.append(writes)
                elif isinstance(writes, Mapping):
                    stores += self._store(pipeline, writes)
                else:
                    pipeline.delete(*writes)
            try:
                if len(pipeline) and await self._ask(pipeline.execute, WRITE_TIMEOUT_S) is not None:
                    self.counts.fills += stores
            finally:
                for mark in marks:
                    _reach(mark)

    def _store(self, pipeline: Pipeline, entries: Mapping[bytes, Entry]) -> int:
        """Returns how many are still worth storing."""
        now_s = self._clock()
        lasting = [(key, entry) for key, entry in entries.items() if entry.stale_until > now_s]
        for key, entry in lasting:
            pipeline.set(key, encode(entry), px=_ttl_ms(key, entry.stale_until - now_s))
        return len(lasting)

    async def _ask(self, command: Callable[[], Awaitable[Any]], timeout_s: float) -> list[Any] | None:
        """The server's reply; None when it fails, or has failed and is left alone."""
        if not self._circuit.allows():
            self.counts.shed += 1
            return None
        asked = asyncio.create_task(self._send(command))
        try:
            await asyncio.wait({asked}, timeout=timeout_s)
        finally:
            if not asked.done():
                self._abandon(asked)
        reply = asked.result() if asked.done() else TimeoutError(f"no answer within {timeout_s:g} s")
        if isinstance(reply, list):
            self._circuit.succeeded()
            return reply
        self.counts.errors += 1
        self._circuit.failed(str(reply) or type(reply).__name__)
        return None

    async def _send(self, command: Callable[[], Awaitable[Any]]) -> list[Any] | Exception:
        try:
            async with self._free:
                reply: list[Any] = await command()
                return reply
        except (RedisError, OSError, TimeoutError) as error:
            return error

    def _abandon(self, asked: asyncio.Task[Any]) -> None:
        """A task of its own, because the client may miss a cancellation while it connects; it ends by itself then."""
        asked.cancel()
        self._abandoned.add(asked)
        asked.add_done_callback(self._abandoned.discard)


def _reach(mark: asyncio.Future[None]) -> None:
    if not mark.done():
        mark.set_result(None)


def _usable(value: bytes | None, now_s: float) -> Found:
    entry = MISS if value is None else decode(value)
    return MISS if isinstance(entry, Miss) or entry.stale_until <= now_s else entry


def _ttl_ms(key: bytes, left_s: float) -> int:
    """The end of a key is as good as random, and every replica shortens it alike."""
    share = JITTER * int.from_bytes(key[-2:], "big") / 65_536
    return max(1, int(1_000 * left_s * (1 - share)))
