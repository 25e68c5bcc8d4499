from apps.app import PartyStatus
from serving.cache.counts import Counts
from serving.cache.memory import MemoryTier, NoMemory
from serving.cache.tier import MISS, Entry
from tests.clock import Clock


def entry(clock, life_s=100.0):
    return Entry(PartyStatus.OK, clock() + life_s / 2, clock() + life_s, bytes(8))


def test_the_number_of_entries_is_bounded_and_the_least_used_goes():
    clock = Clock()
    tier = MemoryTier(3, 600, clock)
    for key in (b"a", b"b", b"c"):
        tier.put(key, entry(clock))
    tier.look(b"a")
    tier.put(b"d", entry(clock))
    assert len(tier) == 3
    assert tier.look(b"b") is MISS
    assert tier.look(b"a") is not MISS


def test_no_entry_outlives_the_level():
    clock = Clock()
    tier = MemoryTier(3, 10, clock)
    tier.put(b"long", entry(clock, 86_400))
    tier.put(b"short", entry(clock, 4))
    assert tier.look(b"long") == Entry(PartyStatus.OK, clock() + 10, clock() + 10, bytes(8))
    assert tier.look(b"short") == entry(clock, 4)
    clock.tick(10)
    assert tier.look(b"long") is MISS


def test_what_has_ended_takes_no_room_once_looked_up():
    clock = Clock()
    tier = MemoryTier(3, 10, clock)
    tier.put(b"a", entry(clock, 1))
    clock.tick(1)
    assert tier.look(b"a") is MISS
    assert len(tier) == 0


async def test_close_forgets():
    clock = Clock()
    tier = MemoryTier(3, 10, clock)
    tier.put(b"a", entry(clock))
    await tier.close()
    assert tier.look(b"a") is MISS


def test_what_goes_to_make_room_is_counted():
    clock = Clock()
    tier = MemoryTier(2, 10, clock)
    for key in (b"a", b"b", b"b", b"c", b"d"):
        tier.put(key, entry(clock))
    assert tier.counts.evictions == 2


def test_a_second_look_is_not_counted():
    clock = Clock()
    tier = MemoryTier(2, 10, clock)
    tier.put(b"a", entry(clock, 5))
    assert tier.look(b"a") == entry(clock, 5)
    assert tier.look(b"b") is MISS
    assert (tier.counts.hits, tier.counts.misses) == (0, 0)


async def test_switched_off_it_keeps_and_counts_nothing():
    tier = NoMemory()
    tier.put(b"a", entry(Clock()))
    assert (tier.fresh([b"a", b"b"]), await tier.get_many([b"a"]), tier.look(b"a")) == ([MISS, MISS], [MISS], MISS)
    assert (len(tier), tier.counts) == (0, Counts())
