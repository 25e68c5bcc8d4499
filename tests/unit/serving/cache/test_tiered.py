import asyncio
from functools import partial as partial_of

import pytest

from apps.app import CacheLevel, PartyStatus
from serving.cache.memory import MemoryTier
from serving.cache.tier import MISS, Entry
from serving.cache.tiered import TieredCache
from tests.clock import Clock

NONE, _, L2, L3 = CacheLevel


def partial(clock, value, fresh_s=1_000.0, stale_s=2_000.0):
    return Entry(PartyStatus.OK, clock() + fresh_s, clock() + stale_s, bytes([value]) * 8)


class Host:
    """Loads entries when it is let go; remembers what it was asked."""

    def __init__(self, clock):
        self.clock = clock
        self.asked = []
        self.cancelled = 0
        self.release = asyncio.Event()
        self.error = None

    async def load(self, positions):
        self.asked.append(list(positions))
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return {position: partial(self.clock, position + 1) for position in positions}


async def fetch(cache, keys, load):
    """All the steps for a batch, as who answers one takes them: entries and their levels."""
    found = [(entry, L2) for entry in cache.peek(keys)]
    rows = []

    async def loaded(places):
        return (await load([rows[place] for place in places])).values()

    for step, level in ((cache.find, L3), (partial_of(cache.load, load=loaded, unpack=list), NONE)):
        rows = [row for row, (entry, _) in enumerate(found) if entry is MISS]
        for row, entry in zip(rows, await step([keys[row] for row in rows]), strict=True):
            found[row] = (entry, level)
    return found


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def near(clock):
    return MemoryTier(10_000, 600, clock)


@pytest.fixture
def shared(clock):
    return MemoryTier(10_000, 86_400, clock)


@pytest.fixture
async def cache(near, shared, clock):
    made = TieredCache(near, shared, clock)
    yield made
    await made.close()


@pytest.fixture
async def host(clock):
    return Host(clock)


async def turns(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_miss_is_loaded_and_then_found_in_memory(cache, host, clock):
    host.release.set()
    assert await fetch(cache, [b"a", b"b"], host.load) == [(partial(clock, 1), NONE), (partial(clock, 2), NONE)]
    assert [level for _, level in await fetch(cache, [b"b", b"a"], host.load)] == [L2, L2]
    assert host.asked == [[0, 1]]


async def test_what_the_shared_level_has_is_not_loaded_and_comes_to_memory(cache, host, shared, near, clock):
    host.release.set()
    shared.put(b"b", partial(clock, 9))
    found = await fetch(cache, [b"a", b"b", b"c"], host.load)
    assert [level for _, level in found] == [NONE, L3, NONE]
    assert host.asked == [[0, 2]]
    assert near.look(b"b").payload == bytes([9]) * 8
    assert shared.look(b"a") is not MISS


async def test_memory_keeps_what_it_got_from_the_shared_level_only_for_its_own_time(cache, host, shared, clock):
    host.release.set()
    shared.put(b"a", partial(clock, 9, 10_000, 10_000))
    await fetch(cache, [b"a"], host.load)
    clock.tick(600)
    assert [level for _, level in await fetch(cache, [b"a"], host.load)] == [L3]
    assert host.asked == []


async def test_peek_sees_only_what_is_fresh_in_memory(cache, near, shared, clock):
    near.put(b"a", partial(clock, 1, 10, 20))
    shared.put(b"b", partial(clock, 2))
    assert cache.peek([b"a", b"b"]) == [partial(clock, 1, 10, 20), MISS]
    clock.tick(15)
    assert cache.peek([b"a"]) == [MISS]


async def test_stale_counts_as_a_miss_but_is_kept(cache, host, near, shared, clock):
    host.release.set()
    host.error = ConnectionError("down")
    for tier in (near, shared):
        tier.put(b"a", partial(clock, 7, 10, 100))
    clock.tick(50)
    with pytest.raises(ConnectionError):
        await fetch(cache, [b"a"], host.load)
    assert host.asked == [[0]]
    assert near.look(b"a").payload == bytes([7]) * 8


async def test_a_thousand_concurrent_misses_make_one_load(cache, host, clock):
    waiters = [asyncio.create_task(fetch(cache, [b"a"], host.load)) for _ in range(1_000)]
    await turns()
    host.release.set()
    for found in await asyncio.gather(*waiters):
        assert found == [(partial(clock, 1), NONE)]
    assert host.asked == [[0]]


async def test_overlapping_batches_load_each_key_once(cache, host):
    first = asyncio.create_task(fetch(cache, [b"a", b"b"], host.load))
    await turns()
    second = asyncio.create_task(fetch(cache, [b"b", b"c", b"c"], host.load))
    await turns()
    host.release.set()
    await asyncio.gather(first, second)
    assert host.asked == [[0, 1], [1]]


async def test_one_waiter_cancelled_leaves_the_others_waiting(cache, host, clock):
    first, second = (asyncio.create_task(fetch(cache, [b"a"], host.load)) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    host.release.set()
    assert await second == [(partial(clock, 1), NONE)]
    assert host.asked == [[0]]


async def test_a_load_that_all_have_left_is_cancelled_and_the_next_loads_again(cache, host, clock):
    waiters = [asyncio.create_task(fetch(cache, [b"a"], host.load)) for _ in range(2)]
    await turns()
    waiters[0].cancel()
    await turns()
    assert host.cancelled == 0
    waiters[1].cancel()
    await turns()
    assert host.cancelled == 1
    host.release.set()
    assert await fetch(cache, [b"a"], host.load) == [(partial(clock, 1), NONE)]
    assert host.asked == [[0], [0]]


async def test_a_question_whose_asker_left_is_no_answer_for_the_others(near, clock):
    class Slow(MemoryTier):
        async def get_many(self, keys):
            await asyncio.Event().wait()

    cache = TieredCache(near, Slow(10, 60, clock), clock)
    first, second = (asyncio.create_task(cache.find([b"a"])) for _ in range(2))
    await turns()
    first.cancel()
    assert await second == [MISS]


async def test_who_waits_for_anothers_load_does_so_until_its_own_deadline(cache, host, clock):
    first = asyncio.create_task(fetch(cache, [b"a"], host.load))
    await turns()
    with pytest.raises(TimeoutError):
        await cache.load(
            [b"a", b"b"], host.load, lambda loaded: list(loaded.values()), asyncio.get_running_loop().time()
        )
    host.release.set()
    assert await first == [(partial(clock, 1), NONE)]
    assert host.cancelled == 1  # of the load that was only for the late one


async def test_a_failed_load_reaches_all_and_is_not_kept(cache, host):
    host.error = ConnectionError("down")
    waiters = [asyncio.create_task(fetch(cache, [b"a", b"b"], host.load)) for _ in range(10)]
    await turns()
    host.release.set()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(result is host.error for result in results)
    host.error = None
    assert [level for _, level in await fetch(cache, [b"a"], host.load)] == [NONE]
    assert len(host.asked) == 2


async def test_a_failure_reaches_only_its_own_keys(cache, host, shared, near, clock):
    host.error = ConnectionError("down")
    host.release.set()
    shared.put(b"b", partial(clock, 9))
    with pytest.raises(ConnectionError):
        await fetch(cache, [b"a", b"b"], host.load)
    assert cache.peek([b"b"]) != [MISS]


async def test_entries_that_end_now_reach_the_waiters_and_are_not_kept(cache, clock):
    async def load(positions):
        return {position: Entry(PartyStatus.TIMEOUT, 0, 0, b"") for position in positions}

    [(entry, level)] = await fetch(cache, [b"a"], load)
    assert (entry.status, level) == (PartyStatus.TIMEOUT, NONE)
    assert cache.peek([b"a"]) == [MISS]


async def test_it_works_without_a_shared_level(near, host, clock):
    host.release.set()
    cache = TieredCache(near, None, clock)
    assert await fetch(cache, [b"a"], host.load) == [(partial(clock, 1), NONE)]
    assert [level for _, level in await fetch(cache, [b"a"], host.load)] == [L2]


async def test_close_ends_loads_and_those_who_wait(cache, host):
    waiter = asyncio.create_task(fetch(cache, [b"a"], host.load))
    await turns()
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_close_ends_loads_aside_too_and_those_who_answer_do_not_join_them(cache, host, clock):
    def aside():
        return cache.load([b"a"], host.load, lambda loaded: list(loaded.values()), aside=True)

    first, second = (asyncio.create_task(aside()) for _ in range(2))
    await turns()
    answering = asyncio.create_task(fetch(cache, [b"a"], host.load))
    await turns()
    assert host.asked == [[0], [0]]
    await cache.close()
    await asyncio.wait({first, second, answering})
    assert all(task.cancelled() for task in (first, second, answering))


async def test_a_request_that_memory_cannot_answer_is_one_miss(cache, near, host):
    host.release.set()
    await fetch(cache, [b"a"], host.load)
    assert (near.counts.hits, near.counts.misses) == (0, 1)
