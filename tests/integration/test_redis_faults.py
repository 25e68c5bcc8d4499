"""The shared cache level while its server is killed, stopped in its tracks, or slow."""

import asyncio
import signal
import time

import pytest
from redis.asyncio import Redis

from apps.app import PartyStatus
from serving.cache import embedded
from serving.cache.embedded import EmbeddedRedis
from serving.cache.redis import QUEUE_ENTRIES, RedisTier
from serving.cache.tier import MISS, Entry

TIMEOUT_S = 0.05


def entry():
    return Entry(PartyStatus.OK, time.time() + 60, time.time() + 60, bytes(8))


@pytest.fixture
async def server(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PAUSE_S", 0.05)
    made = EmbeddedRedis(tmp_path, 64 << 20)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def tier(server):
    made = RedisTier(server.url, TIMEOUT_S)
    yield made
    await made.close()


async def until_found(tier, key, timeout_s=20):
    """Put and get until the server has the key."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        tier.put_many({key: entry()})
        await tier.flush()
        if await tier.get_many([key]) != [MISS]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the shared cache did not come back")


async def test_a_server_killed_under_load_is_lived_without_and_comes_back(server, tier, caplog):
    caplog.set_level("INFO", "serving.cache.circuit")
    await until_found(tier, b"before")
    stop = asyncio.Event()

    async def load(number):
        """Reads and writes without end; ends with the error if one comes through."""
        reads = 0
        while not stop.is_set():
            key = b"%d:%d" % (number, reads)
            tier.put_many({key: entry()})
            [found] = await tier.get_many([key])
            assert found is MISS or found.status is PartyStatus.OK
            reads += 1
            await asyncio.sleep(0.02)  # the load: 50 a second each
        return reads

    users = [asyncio.create_task(load(number)) for number in range(50)]
    try:
        server._process.kill()
        await until_found(tier, b"after")
    finally:
        stop.set()
    assert all(await asyncio.gather(*users))
    assert tier.counts.errors > 0
    said = [record.getMessage() for record in caplog.records if record.name == "serving.cache.circuit"]
    assert said[0].startswith("the shared cache is down")
    assert said[1] == "the shared cache is back"


async def test_a_server_that_stands_still_costs_no_more_than_the_timeout(server, tier):
    await until_found(tier, b"a")
    server._process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        found = await asyncio.gather(*(tier.get_many([b"a"]) for _ in range(200)))
        took_s = time.monotonic() - began
        assert all(answer == [MISS] for answer in found)
        assert took_s < TIMEOUT_S + 0.5
        asked = tier.counts.errors
        for _ in range(100):
            assert await tier.get_many([b"a"]) == [MISS]
        assert tier.counts.errors - asked <= 4, "it is not asked again and again"
        tier.put_many({b"b": entry()})
    finally:
        server._process.send_signal(signal.SIGCONT)
    await until_found(tier, b"c")


async def test_an_answer_never_waits_for_a_write(server, tier):
    await until_found(tier, b"a")
    server._process.send_signal(signal.SIGSTOP)
    try:
        for number in range(QUEUE_ENTRIES + 500):
            tier.put_many({b"%d" % number: entry()})
        assert tier.counts.shed >= 499
    finally:
        server._process.send_signal(signal.SIGCONT)


async def test_nobody_there_from_the_start(tmp_path):
    tier = RedisTier(f"unix://{tmp_path}/nothing", TIMEOUT_S)
    for _ in range(10):
        assert await tier.get_many([b"a", b"b"]) == [MISS, MISS]
    tier.put_many({b"a": entry()})
    await tier.drop_many([b"a"])
    assert (tier.counts.errors, tier.counts.misses) == (3, 20)
    await tier.close()


async def test_many_readers_share_one_connection(server, tier):
    await until_found(tier, b"a")
    slow = RedisTier(server.url, 5.0)
    found = await asyncio.gather(*(slow.get_many([b"a"]) for _ in range(500)))
    assert all(answer != [MISS] for answer in found)
    async with Redis.from_url(server.url) as administration:
        clients = (await administration.info("clients"))["connected_clients"]
    assert clients == 3, "one for each tier, one that asks"
    await slow.close()


async def test_what_another_version_wrote_is_a_miss(server, tier):
    await until_found(tier, b"a")
    async with Redis.from_url(server.url) as administration:
        await administration.set("a", b"\x02whatever", px=1_000)
    assert await tier.get_many([b"a"]) == [MISS]


async def test_ttls_are_shortened_and_never_lengthened(server, tier):
    entries = {number.to_bytes(4, "big"): entry() for number in range(0, 65_536, 1_024)}
    keys = [key + key[2:4] for key in entries]
    tier.put_many(dict(zip(keys, entries.values(), strict=True)))
    await tier.flush()
    async with Redis.from_url(server.url) as administration:
        lives = [await administration.pttl(key) for key in keys]
    assert all(0.89 * 60_000 < life <= 60_000 for life in lives)
    assert max(lives) - min(lives) > 0.05 * 60_000


async def test_close_writes_what_is_waiting(server):
    writing, reading = RedisTier(server.url, 5.0), RedisTier(server.url, 5.0)
    writing.put_many({b"a": entry()})
    await writing.close()
    assert await reading.get_many([b"a"]) != [MISS]
    await reading.close()
