"""What a server of the shared level evicts, as the level counts it: a real server that has too little memory."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from apps.app import PartyStatus
from serving.cache.evicted import EVERY_S
from serving.cache.redis import RedisTier
from serving.cache.tier import Entry
from tests.clock import Clock
from tests.redis_server import launch, url_of

SMALL = {"maxmemory": "4mb", "maxmemory-policy": "volatile-lru"}


class Guest:
    """A level on a clock, and what its server says for itself, which evicts by and by when it is asked something."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url, self.clock = folder, url_of(folder), Clock()
        self.tier = RedisTier(self.url, 5.0, monotonic=self.clock)
        self.server: subprocess.Popen[bytes] | None = None
        self.written = 0

    async def restart_server(self) -> None:
        """It has forgotten everything."""
        if self.server is not None:
            self.server.kill()
            await asyncio.to_thread(self.server.wait)
        self.server = await asyncio.to_thread(lambda: launch(self.folder, **SMALL))

    async def write(self, entries: int) -> None:
        end = time.time() + 600
        self.tier.put_many(
            {
                b"%d" % (self.written + number): Entry(PartyStatus.OK, end, end, bytes(64 << 10))
                for number in range(entries)
            }
        )
        self.written += entries
        await self.tier.flush()

    async def counted(self) -> int:
        """Once the server has told."""
        self.clock.tick(EVERY_S)
        await self.write(1)
        await self.tier.get_many([b"0"])  # replies come in order
        return self.tier.counts.evictions

    async def evicted(self) -> int:
        async with Redis.from_url(self.url) as administration:
            return int((await administration.info("stats"))["evicted_keys"])

    async def questions(self) -> int:
        """That the server was asked before; this is one more."""
        async with Redis.from_url(self.url) as administration:
            return int((await administration.info("commandstats"))["cmdstat_info"]["calls"])


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    guest = Guest(tmp_path)
    await guest.restart_server()
    yield guest
    await guest.tier.close()
    guest.server.kill()
    guest.server.wait(10)


async def test_a_server_that_evicts_is_counted_also_after_it_began_anew(guest: Guest) -> None:
    assert await guest.counted() == 0
    await guest.write(200)
    low, first, high = await guest.evicted(), await guest.counted(), await guest.evicted()
    assert 100 < low <= first <= high
    await guest.restart_server()
    await guest.write(1)  # over the connection that is gone: it opens another
    await guest.write(100)
    low, second, high = await guest.evicted(), await guest.counted(), await guest.evicted()
    assert 0 < low <= second - first <= high < first
    assert guest.tier.counts.errors <= 1


async def test_the_server_is_asked_rarely(guest: Guest) -> None:
    await guest.counted()
    asked = await guest.questions()
    for _ in range(5):
        await guest.write(1)
    assert await guest.questions() == asked + 1
    await guest.counted()
    assert await guest.questions() == asked + 3


async def test_a_server_that_does_not_tell_is_no_fault(guest: Guest) -> None:
    async with Redis.from_url(guest.url) as administration:
        await administration.acl_setuser("default", enabled=True, commands=["-info"])
    assert await guest.counted() == 0
    assert (guest.tier.counts.errors, guest.tier.is_down) == (0, False)
