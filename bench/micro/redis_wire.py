"""The shared cache level over its own connection, and redis-py beside it: 1 000 look-ups at once, 1 000 writes.

CPU µs are those of this process; 1 000 look-ups in 20 000 µs are 50 000 per core-second.
"""

from __future__ import annotations

import asyncio
import atexit
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

from apps.app import PartyStatus
from serving.cache.redis import RedisTier
from serving.cache.redis_connection import RedisAddress, RedisConnection, packed
from serving.cache.tier import Entry
from tests.redis_server import redis_server

KEYS = [b"t1:bank:0:%016d" % number for number in range(1_000)]
END = time.time() + 1e6
ENTRIES = {key: Entry(PartyStatus.OK, END, END, bytes(8)) for key in KEYS}


def connection_1000_gets() -> Callable[[], None]:
    """1 000 concurrent GETs, each its own future. Budget: 20 000 µs."""
    connection = RedisConnection(RedisAddress.of(redis_url()))
    commands = [packed("GET", key) for key in KEYS]

    async def step() -> None:
        await asyncio.gather(*(connection.send(command, 1, 10.0) for command in commands))

    return stepping(step)


def tier_1000_look_ups() -> Callable[[], None]:
    """1 000 concurrent look-ups of one key through the tier, decoded and counted; a task for each."""
    tier = RedisTier(redis_url(), 10.0)

    async def step() -> None:
        await asyncio.gather(*(tier.get_many([key]) for key in KEYS))

    return stepping(step)


def tier_batch_of_1000() -> Callable[[], None]:
    """One look-up of 1 000 keys through the tier: one MGET."""
    tier = RedisTier(redis_url(), 10.0)
    return stepping(lambda: tier.get_many(KEYS))


def tier_1000_writes() -> Callable[[], None]:
    """1 000 entries put at once and written."""
    tier = RedisTier(redis_url(), 10.0)

    async def step() -> None:
        tier.put_many(ENTRIES)
        await tier.flush()

    return stepping(step)


def redis_py_1000_gets() -> Callable[[], None]:
    """1 000 concurrent GETs with redis-py over 16 connections."""
    client = Redis(connection_pool=BlockingConnectionPool.from_url(redis_url(), max_connections=16, timeout=None))

    async def step() -> None:
        await asyncio.gather(*(client.get(key) for key in KEYS))

    return stepping(step)


def redis_py_1000_writes() -> Callable[[], None]:
    """1 000 SETs in one pipeline of redis-py, which builds it without giving way."""
    client = Redis.from_url(redis_url())

    async def step() -> None:
        pipeline = client.pipeline(transaction=False)
        for key in KEYS:
            pipeline.set(key, bytes(26), px=60_000)
        await pipeline.execute()

    return stepping(step)


def stepping(step: Callable[[], Awaitable[object]]) -> Callable[[], None]:
    async def once() -> None:
        await step()

    _loop().run_until_complete(once())
    return lambda: _loop().run_until_complete(once())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


@cache
def redis_url() -> str:
    """Ends with this process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(redis_server(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
