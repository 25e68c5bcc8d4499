"""What every store of activity does, in memory and in a real Redis-protocol server."""

from __future__ import annotations

import pytest

from serving.activity_store import KEPT_S, MemoryActivityStore, RedisActivityStore
from tests.redis_server import launch, url_of

DAY = 20_000


@pytest.fixture(params=["memory", "redis"])
def where(request, tmp_path):
    """ "" for memory, else the server's URL."""
    if request.param == "memory":
        yield ""
        return
    server = launch(tmp_path)
    yield url_of(tmp_path)
    server.kill()
    server.wait()


@pytest.fixture
async def store(where):
    made = RedisActivityStore(where, "bank", 0, 3) if where else MemoryActivityStore(3)
    yield made
    await made.close()


async def test_counts_add_up_over_calls_and_days_and_come_in_their_order(store):
    await store.add(DAY, [("s", b"a", 1), ("s", b"b", 5)])
    await store.add(DAY, [("s", b"a", 2)])
    await store.add(DAY + 1, [("s", b"a", 4), ("s", b"c", 1)])
    assert await store.top("s", (DAY, DAY + 1), 0, 10) == ([(b"a", 7), (b"b", 5), (b"c", 1)], 3, 13)
    assert await store.top("s", (DAY, DAY), 0, 10) == ([(b"b", 5), (b"a", 3)], 2, 8)


async def test_pages_follow_each_other_and_ties_have_an_order(store):
    await store.add(DAY, [("s", b"a", 1), ("s", b"b", 1), ("s", b"c", 1)])
    pages = [(await store.top("s", (DAY, DAY), offset, 1))[0] for offset in range(4)]
    assert pages == [[(b"c", 1)], [(b"b", 1)], [(b"a", 1)], []]


async def test_services_are_apart(store):
    await store.add(DAY, [("s", b"a", 1), ("t", b"a", 1)])
    assert await store.top("t", (DAY, DAY), 0, 10) == ([(b"a", 1)], 1, 1)
    assert await store.top("u", (DAY, DAY), 0, 10) == ([], 0, 0)


async def test_the_number_of_users_of_a_day_is_bounded(store):
    await store.add(DAY, [("s", b"%d" % number, 10 - number) for number in range(5)])
    found, users, _ = await store.top("s", (DAY, DAY), 0, 10)
    assert found == [(b"0", 10), (b"1", 9), (b"2", 8)]
    assert users == 3


async def test_every_key_has_an_end(where, tmp_path):
    if not where:
        pytest.skip("of the server")
    from redis.asyncio import Redis

    store = RedisActivityStore(where, "bank", 7, 3)
    await store.add(DAY, [("s", b"a", 1)])
    await store.top("s", (DAY, DAY), 0, 1)
    async with Redis.from_url(where) as administration:
        lives = {key: await administration.ttl(key) for key in await administration.keys()}
    assert len(lives) == 2
    assert all(key.startswith(b"ta1:bank:7:s:") and 0 < life <= KEPT_S for key, life in lives.items())
    await store.close()


async def test_a_server_that_is_not_there_is_an_os_error(tmp_path):
    store = RedisActivityStore(f"unix://{tmp_path}/nothing", "bank", 0, 3)
    with pytest.raises(OSError):
        await store.add(DAY, [("s", b"a", 1)])
    await store.close()
