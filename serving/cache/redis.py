"""The cache level in a Redis-protocol server, shared by replicas and restarts.

Reads are one MGET per batch and give up after `timeout_s`. Writes go through a bounded queue and never delay an answer.
When the server fails, the tier answers MISS without asking until a pause is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import hiredis

from apps.app import PartyStatus
from serving.cache.circuit import Circuit
from serving.cache.codec import decode, head
from serving.cache.counts import Counts
from serving.cache.evicted import Evicted
from serving.cache.redis_connection import BusyError, RedisAddress, RedisConnection, packed
from serving.cache.tier import MISS, CacheTier, Entry, Found, Miss

WRITE_TIMEOUT_S = 1.0
"""For one batch of writes: nobody waits for it."""
COLLECT_S = 0.001
"""How long writes wait for company. The answers that they come from leave meanwhile."""
SPACED_S = 0.01
"""From one batch of writes to the next: to wake the server costs as much as to write twenty entries."""
PIPELINE = 64
"""Entries after which what is waiting makes another round trip: to pack so many keeps the event loop for 0.2 ms."""
QUEUE_ENTRIES = 20_000
"""Entries waiting to be written; the oldest batch goes when there are more."""
JITTER = 0.1
"""Entries written together expire within this share of their time, never later than they say."""
_SHARES = tuple(1_000 * (1 - JITTER * byte / 256) for byte in range(256))
"""Of the seconds left, in milliseconds, by the end of the key: it is as good as random, and equal at every replica."""

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
        self._connection = RedisConnection(RedisAddress.of(url))
        self._timeout_s = timeout_s
        self._clock = clock
        self._circuit = Circuit("the shared cache", monotonic)
        self._waiting: deque[Writes | asyncio.Future[None]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._began_s = 0.0
        self._waiting_entries = 0
        self.counts = Counts()
        self._evicted = Evicted(self._connection, self.counts, monotonic)

    @property
    def is_down(self) -> bool:
        return self._circuit.is_open

    async def get_many(self, keys: Sequence[bytes]) -> list[Found]:
        values = await self._values(keys) if keys else []
        now_s = self._clock()
        found = [MISS if value is None else _usable(value, now_s) for value in values]
        hits = sum(entry is not MISS and entry.fresh_until > now_s for entry in found)
        self.counts.misses += len(found) - hits
        self.counts.hits += hits
        return found

    def put_many(self, entries: Mapping[bytes, Entry]) -> None:
        """In pieces: the event loop gets its turn between two."""
        left = iter(entries.items())
        while piece := dict(islice(left, PIPELINE)):
            self._enqueue(piece)

    async def drop_many(self, keys: Sequence[bytes]) -> None:
        """Returns when the keys are gone, or the server has failed: then their own TTL is what ends them."""
        if keys:
            self._enqueue(list(keys))
            await self.flush()

    async def claim(self, key: bytes, ttl_s: float) -> bool | None:
        """Whether this is the first claim on the key in that time; None when the server does not say."""
        command = packed("SET", key, b"", "NX", "PX", str(max(1, int(1_000 * ttl_s))))
        replies = await self._ask(command, 1, self._timeout_s)
        return None if replies is None else replies[0] is not None

    async def flush(self) -> None:
        """Returns when everything put so far is written or given up, whatever is put meanwhile."""
        if self._waiting or self._is_writing:
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append(reached)
            self._begin_writing()
            await reached

    async def close(self) -> None:
        """Waits a moment for what is still to be written."""
        if self._waiting:
            self._begin_writing()
        if self._writer is not None:
            _, late = await asyncio.wait({self._writer}, timeout=WRITE_TIMEOUT_S)
            for writer in late:
                writer.cancel()
                await asyncio.wait({writer})
            while self._waiting:
                self._give_up()
        await self._connection.close()

    def _enqueue(self, writes: Writes) -> None:
        self._waiting_entries += len(writes)
        while self._waiting and self._waiting_entries > QUEUE_ENTRIES:
            self._give_up()
        self._waiting.append(writes)
        if not self._is_writing and self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_at(max(loop.time() + COLLECT_S, self._began_s + SPACED_S), self._begin_writing)

    @property
    def _is_writing(self) -> bool:
        return self._writer is not None and not self._writer.done()

    def _begin_writing(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._is_writing:
            loop = asyncio.get_running_loop()
            self._began_s, self._writer = loop.time(), loop.create_task(self._write())

    def _give_up(self) -> None:
        oldest = self._waiting.popleft()
        if isinstance(oldest, asyncio.Future):
            _reach(oldest)
        else:
            self._waiting_entries -= len(oldest)
            self.counts.shed += len(oldest)

    async def _write(self) -> None:
        while self._waiting:
            marks: list[asyncio.Future[None]] = []
            commands: list[bytes] = []
            stores = 0
            while self._waiting and len(commands) < PIPELINE:
                writes = self._waiting.popleft()
                if isinstance(writes, asyncio.Future):
                    marks.append(writes)
                    continue
                self._waiting_entries -= len(writes)
                if isinstance(writes, Mapping):
                    sets = self._sets(writes)
                    stores += len(sets)
                    commands += sets
                else:
                    commands.append(packed("DEL", *writes))
            try:
                if commands and await self._ask(b"".join(commands), len(commands), WRITE_TIMEOUT_S) is not None:
                    self.counts.fills += stores
                    self._evicted.ask()
            finally:
                for mark in marks:
                    _reach(mark)

    def _sets(self, entries: Mapping[bytes, Entry]) -> list[bytes]:
        """One command for each that is still worth storing. Those of one answer mostly begin alike."""
        now_s, made, first, begin = self._clock(), list[bytes](), _NONE, head(_NONE)
        for key, entry in entries.items():
            left_s = entry.stale_until - now_s
            if left_s <= 0:
                continue
            times = (entry.fresh_until, entry.stale_until)
            if times != (first.fresh_until, first.stale_until) or entry.status is not first.status:
                first, begin = entry, head(entry)
            made.append(_set(key, begin, entry.payload, int(_SHARES[key[-2:][0]] * left_s) or 1))
        return made

    async def _values(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        replies = await self._ask(packed("MGET", *keys), 1, self._timeout_s)
        if replies is None:
            return [None] * len(keys)
        [values] = replies
        if not isinstance(values, list) or len(values) != len(keys):
            self._failed("the server answered something else")
            self._connection.drop("the server answered something else")
            return [None] * len(keys)
        return values

    async def _ask(self, commands: bytes, replies: int, timeout_s: float) -> list[Any] | None:
        """The server's replies; None when it fails, or has failed and is left alone."""
        if not self._circuit.allows():
            self.counts.shed += 1
            return None
        try:
            answer = await self._connection.send(commands, replies, timeout_s)
        except BusyError:
            self.counts.shed += 1
            return None
        except OSError as error:
            self._failed(str(error))
            return None
        refused = next((reply for reply in answer if isinstance(reply, hiredis.ReplyError)), None)
        if refused is not None:
            self._failed(str(refused))
            return None
        self._circuit.succeeded()
        return answer

    def _failed(self, reason: str) -> None:
        self.counts.errors += 1
        self._circuit.failed(reason)


def _reach(mark: asyncio.Future[None]) -> None:
    if not mark.done():
        mark.set_result(None)


def _usable(value: object, now_s: float) -> Found:
    entry = decode(value) if isinstance(value, bytes) else MISS
    return MISS if isinstance(entry, Miss) or entry.stale_until <= now_s else entry


def _set(key: bytes, begin: bytes, rest: bytes, ttl_ms: int) -> bytes:
    """As `packed` would make it, in a quarter of the time."""
    before, between = _lengths(len(key), len(begin) + len(rest))
    ends = b"%d" % ttl_ms
    return b"".join((before, key, between, begin, rest, _BULK[len(ends)], ends, b"\r\n"))


@lru_cache(256)
def _lengths(key: int, value: int) -> tuple[bytes, bytes]:
    return b"*5\r\n$3\r\nSET\r\n$%d\r\n" % key, b"\r\n$%d\r\n" % value


_BULK = tuple(b"\r\n$2\r\nPX\r\n$%d\r\n" % size for size in range(32))
_NONE = Entry(PartyStatus.OK, 0.0, 0.0, b"")
