"""What every cache tier does, in memory and in a real Redis-protocol server."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.app import PartyStatus
from serving.cache.embedded import EmbeddedRedis
from serving.cache.memory import MemoryTier
from serving.cache.redis import RedisTier
from serving.cache.tier import MISS, Entry
from tests.clock import Clock

PARTIAL = b"\x00\x00\x00\x00\x00\x00\xf0?"


class Rig:
    """A tier on a clock; `settle` returns when what was put can be read."""

    def __init__(self, tier, clock, settle):
        self.tier = tier
        self.clock = clock
        self.settle = settle

    def entry(self, fresh_s=10.0, stale_s=20.0, payload=PARTIAL, status=PartyStatus.OK):
        return Entry(status, self.clock() + fresh_s, self.clock() + stale_s, payload)

    async def put(self, entries):
        self.tier.put_many(entries)
        await self.settle()


async def nothing():
    pass


@pytest.fixture(params=["memory", "redis"])
async def rig(request, tmp_path):
    clock = Clock()
    if request.param == "memory":
        yield Rig(MemoryTier(1_000, 600, clock), clock, nothing)
        return
    server = EmbeddedRedis(tmp_path, 64 << 20)
    await server.start()
    tier = RedisTier(server.url, 5.0, clock)
    yield Rig(tier, clock, tier.flush)
    await tier.close()
    await server.stop()


async def test_what_was_put_is_found_in_order(rig):
    here = rig.entry()
    absent = rig.entry(payload=b"", status=PartyStatus.NOT_FOUND)
    await rig.put({b"a": here, b"b": absent})
    assert await rig.tier.get_many([b"b", b"none", b"a", b"b"]) == [absent, MISS, here, absent]


async def test_nothing_asked_nothing_answered(rig):
    await rig.put({})
    await rig.tier.drop_many([])
    assert await rig.tier.get_many([]) == []


async def test_an_entry_ends_at_its_stale_time_and_no_read_prolongs_it(rig):
    await rig.put({b"a": rig.entry(fresh_s=1, stale_s=2)})
    rig.clock.tick(1.5)
    [found] = await rig.tier.get_many([b"a"])
    assert found.fresh_until < rig.clock() < found.stale_until
    rig.clock.tick(0.5)
    assert await rig.tier.get_many([b"a"]) == [MISS]


async def test_an_entry_past_its_time_is_not_stored(rig):
    await rig.put({b"a": rig.entry(fresh_s=-2, stale_s=0)})
    assert await rig.tier.get_many([b"a"]) == [MISS]


async def test_a_later_put_replaces(rig):
    await rig.put({b"a": rig.entry()})
    await rig.put({b"a": rig.entry(payload=2 * PARTIAL)})
    [found] = await rig.tier.get_many([b"a"])
    assert found.payload == 2 * PARTIAL


async def test_dropped_is_gone_also_right_after_the_put(rig):
    rig.tier.put_many({b"a": rig.entry(), b"b": rig.entry()})
    await rig.tier.drop_many([b"a", b"unknown"])
    found = await rig.tier.get_many([b"a", b"b"])
    assert found[0] is MISS
    assert found[1] is not MISS


async def test_hits_misses_and_fills_are_counted(rig):
    await rig.put({b"a": rig.entry()})
    await rig.tier.get_many([b"a", b"b", b"c"])
    counts = rig.tier.counts
    assert (counts.fills, counts.hits, counts.misses, counts.errors) == (1, 1, 2, 0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.lists(st.floats(width=64), max_size=4), life=st.floats(0.001, 1e6), share=st.floats(0, 1))
async def test_no_entry_is_found_after_its_end(rig, payload, life, share):
    import struct

    entry = rig.entry(life * share, life, struct.pack(f"<{len(payload)}d", *payload))
    await rig.put({b"p": entry})
    [found] = await rig.tier.get_many([b"p"])
    if found is not MISS:
        assert found.payload == entry.payload
        assert found.fresh_until <= entry.fresh_until
        assert found.stale_until <= entry.stale_until
    rig.clock.tick(life * 1.000001)
    assert await rig.tier.get_many([b"p"]) == [MISS]
