import asyncio

import pytest
from msgspec import structs

from apps.app import CacheLevel, PartyStatus
from serving.cache.memory import MemoryTier
from serving.cache.tier import MISS, Entry
from serving.cache.tiered import TieredCache
from serving.peers.remote import RemotePartials
from serving.settings import CacheSettings, PeerSettings, Purpose
from tests.clock import Clock
from tests.unit.serving.peers.host_party import collected, partial, shop

OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, MISMATCH, INTERNAL = PartyStatus
NONE, _, L2, L3 = CacheLevel
SETTINGS = CacheSettings()


class Guest:
    """A guest's way to the host `shop`, with both cache levels in memory."""

    def __init__(self, host, clock):
        self.host = host
        self.clock = clock
        self.secret, self.settings = bytes(32), SETTINGS
        self.shared = MemoryTier(1_000, SETTINGS.shared_ttl_s, clock)
        self.restart()

    def restart(self):
        """A new process: memory is empty, the shared level is not."""
        near = MemoryTier(1_000, SETTINGS.remote_ttl_s, self.clock)
        self.cache = TieredCache(near, self.shared, self.clock)
        peers = {"shop": self.host.peer}
        self.remote = RemotePartials("bank", peers, self.cache, self.secret, self.settings, self.clock)

    async def fetch(self, *users, timeout_s=5.0):
        return await collected(self.remote, self.host, users, timeout_s)

    def look(self, *users):
        return self.remote.look("shop", self.host.handle, users)

    async def shadow(self, *users):
        lookup = self.look(*users)
        if not lookup.is_whole:
            await self.remote.ask_aside(lookup, asyncio.get_running_loop().time() + 5.0)
        return lookup.partials()


@pytest.fixture
def max_age_s():
    return None


@pytest.fixture
async def guest(tmp_path, max_age_s):
    async with shop(tmp_path, max_age_s=max_age_s) as host:
        yield Guest(host, Clock())


async def test_host_then_memory_then_after_a_restart_the_shared_level(guest):
    for level in (NONE, L2):
        found = await guest.fetch("u1", "u2")
        assert (found.statuses, found.levels) == ([OK, OK], [level, level])
        assert found.values.tolist() == [[partial("u1")], [partial("u2")]]
    guest.restart()
    found = await guest.fetch("u2", "u1")
    assert found.levels == [L3, L3]
    assert found.values.tolist() == [[partial("u2")], [partial("u1")]]
    assert guest.host.asked == [["u1", "u2"]]


async def test_only_what_is_missing_is_asked_for_in_one_call(guest):
    await guest.fetch("u1")
    found = await guest.fetch("u1", "u2", "nobody", "u2")
    assert guest.host.asked == [["u1"], ["u2", "nobody"]]
    assert found.statuses == [OK, OK, NOT_FOUND, OK]
    assert found.levels == [L2, NONE, NONE, NONE]
    assert found.values[:, 0].tolist() == [partial("u1"), partial("u2"), 0.0, partial("u2")]


async def test_a_look_finds_what_memory_has(guest):
    assert guest.look("u1").missing() == [0]
    await guest.fetch("u1", "nobody")
    found = guest.look("nobody", "u1").partials()
    assert (found.party, found.statuses, found.levels) == ("shop", [NOT_FOUND, OK], [L2, L2])
    assert found.values.tolist() == [[0.0], [partial("u1")]]
    assert guest.look("u1", "u2").missing() == [1]


async def test_memory_forgets_after_its_time_and_the_shared_level_after_its_own(guest):
    await guest.fetch("u1")
    guest.clock.tick(SETTINGS.remote_ttl_s)
    assert (await guest.fetch("u1")).levels == [L3]
    guest.clock.tick(SETTINGS.shared_ttl_s)
    assert (await guest.fetch("u1")).levels == [NONE]


async def test_an_unknown_user_is_remembered_for_a_shorter_time(guest):
    await guest.fetch("nobody")
    assert (await guest.fetch("nobody")).levels == [L2]
    guest.host.features["nobody"] = {"x": 1.0, "y": 1.0}
    guest.clock.tick(SETTINGS.not_found_ttl_s)
    found = await guest.fetch("nobody")
    assert (found.statuses, found.levels) == ([OK], [NONE])


@pytest.mark.parametrize("max_age_s", [5.0])
async def test_nothing_is_kept_longer_than_the_host_allows(guest):
    await guest.fetch("u1", "nobody")
    guest.clock.tick(4.9)
    assert (await guest.fetch("u1")).levels == [L2]
    guest.clock.tick(0.1)
    guest.restart()
    assert (await guest.fetch("u1", "nobody")).levels == [NONE, NONE]


@pytest.mark.parametrize("max_age_s", [0.0])
async def test_what_the_host_forbids_to_cache_is_not_cached(guest):
    await guest.fetch("u1")
    assert (await guest.fetch("u1")).levels == [NONE]
    assert guest.host.asked == [["u1"], ["u1"]]


async def test_a_failure_is_not_cached(guest):
    found = await guest.fetch("broken")
    assert found.statuses == [INTERNAL]
    guest.host.features["broken"] = {"x": 1.0, "y": 1.0}
    assert (await guest.fetch("broken")).statuses == [OK]


async def test_a_refused_call_keeps_its_reason_and_the_cached_rows(guest):
    await guest.fetch("u1")
    found = await guest.fetch("u1", *(f"user{number}" for number in range(51)))
    assert found.statuses[0] is OK
    assert set(found.statuses[1:]) == {REJECTED}
    assert "51 users in one call" in found.reason


async def test_a_host_that_is_down_leaves_the_cached_rows(guest):
    await guest.fetch("u1")
    await guest.host.server.stop(0)
    found = await guest.fetch("u1", "u2")
    assert (found.statuses, found.levels) == ([OK, UNREACHABLE], [L2, NONE])
    assert found.reason == "unreachable"
    assert not found.complete


async def test_a_party_without_an_address(guest):
    guest.remote = RemotePartials("bank", {}, guest.cache, bytes(32), SETTINGS, guest.clock)
    found = await guest.fetch("u1")
    assert (found.party, found.statuses) == ("shop", [UNREACHABLE])
    assert found.reason == "the settings give it no address"


async def test_waiting_for_another_callers_call_ends_at_the_own_deadline(guest):
    async with asyncio.timeout(5):
        await guest.host.server.stop(0)
        hanging = asyncio.Event()

        async def never(positions):
            await hanging.wait()
            return [Entry(TIMEOUT, 0, 0, b"") for _ in positions]

        keys = guest.remote._keys("shop", guest.host.handle, ["u1"])
        first = asyncio.create_task(guest.cache.load(keys, never, list))
        await asyncio.sleep(0)
        found = await guest.fetch("u1", timeout_s=0.05)
        assert (found.statuses, found.reason) == ([TIMEOUT], "no answer within the deadline")
        hanging.set()
        await first


async def test_a_call_with_less_time_does_not_take_time_from_those_who_join_it(guest):
    """The host answers when it is too late for the first; the second asks again."""
    guest.host.answering_now.clear()
    hurried = asyncio.create_task(guest.fetch("u1", timeout_s=0.05))
    await asyncio.sleep(0)
    patient = asyncio.create_task(guest.fetch("u1", timeout_s=5.0))
    assert (await hurried).statuses == [TIMEOUT]
    guest.host.answering_now.set()
    found = await patient
    assert (found.statuses, found.reason) == ([OK], "")


async def test_an_entry_of_another_width_is_no_partial(guest):
    await guest.fetch("u1")
    [key] = guest.remote._keys("shop", guest.host.handle, ["u1"])
    now = guest.clock()
    guest.shared.put(key, Entry(OK, now + 10, now + 10, bytes(16)))
    guest.restart()
    found = await guest.fetch("u1", "u2")
    assert found.statuses == [INTERNAL, OK]
    assert found.values.tolist() == [[0.0], [partial("u2")]]


async def test_with_another_secret_nothing_of_the_old_one_is_found_and_nothing_fails(guest):
    """Rotation: replicas with the new secret ask again; what the old one keyed ends by its TTL."""
    await guest.fetch("u1")
    old = set(guest.shared._entries)
    guest.secret, guest.settings = b"n" * 32, structs.replace(SETTINGS, key_id=1)
    guest.restart()
    assert (await guest.fetch("u1")).levels == [NONE]
    guest.restart()
    assert (await guest.fetch("u1")).levels == [L3]
    new = set(guest.shared._entries) - old
    assert [key.startswith(b"t1:bank:1:") for key in new] == [True]
    guest.clock.tick(SETTINGS.shared_ttl_s)
    assert guest.shared.fresh(list(old)) == [MISS]


async def test_no_raw_id_reaches_the_shared_level(guest):
    await guest.fetch("u1")
    assert all(b"u1" not in key.rpartition(b":")[2] for key in guest.shared._entries)
    assert all(key.startswith(b"t1:bank:0:") for key in guest.shared._entries)


async def test_a_thousand_callers_for_one_user_make_one_call(guest):
    found = await asyncio.gather(*(guest.fetch("u1") for _ in range(1_000)))
    assert guest.host.asked == [["u1"]]
    assert all(answer.values.tolist() == [[partial("u1")]] for answer in found)


async def test_a_shadow_says_so_and_leaves_nothing_behind(tmp_path):
    async with shop(tmp_path, allowed=PeerSettings(purposes=(Purpose.SHADOW,))) as host:
        guest = Guest(host, Clock())
        found = await guest.shadow("u1", "nobody")
        assert (found.statuses, found.levels) == ([OK, NOT_FOUND], [NONE, NONE])
        assert found.values.tolist() == [[partial("u1")], [0.0]]
        assert not guest.look("u1").is_whole
        assert (await guest.fetch("u1")).statuses == [REJECTED]


async def test_a_shadow_that_the_host_refuses_costs_no_answer(guest):
    await guest.fetch("u1")
    refused = await guest.shadow("u1", "u2")
    assert (refused.statuses, refused.levels) == ([OK, REJECTED], [L2, NONE])
    assert "shadow calls" in refused.reason
    assert (await guest.shadow("u1")).levels == [L2]
    assert (await guest.fetch("u2")).statuses == [OK]
