"""What stands in for a host that fails: over the wire, with both cache levels in memory."""

from functools import partial

import numpy as np
import pytest

from apps.app import CacheLevel, PartyStatus
from serving.cache.memory import MemoryTier
from serving.cache.tiered import TieredCache
from serving.peers.fallback import FAIL, Fallbacks, filled, own_scores, scored
from serving.peers.partials import HostPartials
from serving.peers.remote import RemotePartials
from serving.settings import CacheSettings, FallbackPolicy, FallbackSettings
from tests.clock import Clock
from tests.unit.serving.peers.host_party import collected, halves, shop
from tests.unit.serving.peers.host_party import partial as sent

OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, MISMATCH, INTERNAL = PartyStatus
FAILURES = [status for status in PartyStatus if status is not OK]
NONE, _, L2, L3 = CacheLevel
STALE = FallbackSettings(policy=FallbackPolicy.STALE)
PARTIAL = FallbackSettings(policy=FallbackPolicy.PARTIAL)
DEFAULT = FallbackSettings(policy=FallbackPolicy.DEFAULT, score=0.25)
MEAN = 0.375
SETTINGS = CacheSettings(stale_s=1_000.0)


class Guest:
    def __init__(self, host):
        self.host = host
        self.clock = Clock()
        self.shared = MemoryTier(1_000, SETTINGS.shared_ttl_s, self.clock, SETTINGS.stale_s)
        self.restart()

    def restart(self):
        """A new process: memory is empty, the shared level is not."""
        near = MemoryTier(1_000, SETTINGS.remote_ttl_s, self.clock, SETTINGS.stale_s)
        cache = TieredCache(near, self.shared, self.clock)
        self.remote = RemotePartials("bank", {"shop": self.host.peer}, cache, bytes(32), SETTINGS, self.clock)

    async def fetch(self, *users):
        return await collected(self.remote, self.host, users)

    async def degraded(self, fallback, *users):
        found = await self.fetch(*users)
        [part] = await filled(fallback, self.host.handle, users, [found], self.remote)
        return part


@pytest.fixture
async def guest(tmp_path):
    async with shop(tmp_path, max_age_s=60.0) as host:
        yield Guest(host)


async def test_a_stale_partial_stands_in_for_a_host_that_is_gone(guest):
    await guest.fetch("u1")
    guest.clock.tick(60)
    await guest.host.server.stop(0)
    part = await guest.degraded(STALE, "u2", "u1")
    assert part.statuses == [UNREACHABLE, UNREACHABLE]
    assert part.levels == [NONE, L2]
    assert part.values[1].tolist() == [sent("u1")]
    assert part.stand_ins == {1}
    assert [part.usable(row) for row in (0, 1)] == [False, True]


async def test_the_shared_level_has_it_after_a_restart_until_it_is_no_use_any_more(guest):
    await guest.fetch("u1")
    await guest.host.server.stop(0)
    guest.restart()
    guest.clock.tick(60 + SETTINGS.stale_s - 1)
    assert (await guest.degraded(STALE, "u1")).levels == [L3]
    guest.clock.tick(1)
    assert not (await guest.degraded(STALE, "u1")).stand_ins


async def test_what_stood_in_is_asked_for_again_as_soon_as_the_host_answers(guest):
    await guest.fetch("u1")
    guest.clock.tick(60)
    found = await guest.fetch("u1")
    assert (found.statuses, found.levels) == ([OK], [NONE])
    assert guest.host.asked == [["u1"], ["u1"]]


async def test_the_host_knows_better_that_it_does_not_know_a_user(guest):
    await guest.fetch("u1")
    del guest.host.features["u1"]
    guest.clock.tick(60)
    part = await guest.degraded(STALE, "u1")
    assert (part.statuses, part.stand_ins) == ([NOT_FOUND], frozenset())


async def test_a_configured_score_stands_in_row_by_row(guest):
    part = await guest.degraded(DEFAULT, "u1", "nobody")
    scores = scored(DEFAULT, np.array([[1.0], [2.0]]), [part])
    assert scores.tolist() == [[1.0], [0.25]]
    assert part.statuses == [OK, NOT_FOUND]
    own = own_scores(scores, [part])
    assert own[0, 0] == 1.0
    assert np.isnan(own[1, 0])


@pytest.fixture
async def declaring(tmp_path):
    """The guest's half declares what stands in for the shop."""
    async with shop(tmp_path, made=partial(halves, stand_ins={"shop": [MEAN]})) as host:
        yield Guest(host)


async def test_the_mean_partial_stands_in_for_a_host_that_is_gone(declaring):
    await declaring.host.server.stop(0)
    part = await declaring.degraded(PARTIAL, "u1", "nobody")
    assert part.values.tolist() == [[MEAN], [MEAN]]
    assert (part.statuses, part.levels) == ([UNREACHABLE, UNREACHABLE], [NONE, NONE])
    assert part.stand_ins == {0, 1}
    assert not part.complete
    assert np.isnan(own_scores(np.zeros((2, 1)), [part])).all()


@pytest.mark.parametrize("status", FAILURES)
async def test_the_mean_partial_stands_in_row_by_row_whatever_the_status(declaring, status):
    values = np.array([[0.5], [0.0], [0.25]])
    part = HostPartials("shop", values, [OK, status, OK], [L2, NONE, NONE])
    [found] = await filled(PARTIAL, declaring.host.handle, ["a", "b", "c"], [part], declaring.remote)
    assert found.values.tolist() == [[0.5], [MEAN], [0.25]]
    assert values[1, 0] == 0.0
    assert found.stand_ins == {1}
    assert found.statuses == part.statuses


@pytest.mark.parametrize("status", FAILURES)
async def test_what_was_kept_stands_in_unless_the_host_said_since_that_it_has_nothing(guest, status):
    await guest.fetch("u1", "u2")
    guest.clock.tick(60)
    part = HostPartials("shop", np.zeros((2, 1)), [OK, status], [NONE, NONE])
    [found] = await filled(STALE, guest.host.handle, ["u1", "u2"], [part], guest.remote)
    assert found.stand_ins == (set() if status is NOT_FOUND else {1})
    assert found.values.tolist() == [[0.0], [0.0 if status is NOT_FOUND else sent("u2")]]
    assert found.statuses == part.statuses


async def test_the_mean_partial_stands_in_for_a_user_whom_the_host_does_not_know(declaring):
    part = await declaring.degraded(PARTIAL, "u1", "nobody")
    assert (part.statuses, part.stand_ins) == ([OK, NOT_FOUND], {1})
    assert part.values.tolist() == [[sent("u1")], [MEAN]]


async def test_the_mean_partial_stands_in_for_a_host_of_another_binding(tmp_path):
    def disagreeing(folder):
        return halves(folder / "ours", {"shop": [MEAN]})[0], halves(folder / "theirs")[1]

    async with shop(tmp_path, made=disagreeing) as host:
        part = await Guest(host).degraded(PARTIAL, "u1")
    assert (part.statuses, part.stand_ins) == ([MISMATCH], {0})
    assert part.reason.startswith("mismatch: ")
    assert part.values.tolist() == [[MEAN]]


async def test_a_mean_partial_is_never_cached(declaring):
    declaring.host.answering_now.clear()
    await declaring.host.server.stop(0)
    assert (await declaring.degraded(PARTIAL, "u1")).stand_ins == {0}
    assert (await declaring.degraded(STALE, "u1")).stand_ins == frozenset()
    assert (await declaring.degraded(FAIL, "u1")).levels == [NONE]


async def test_without_a_declared_mean_partial_the_row_stays_failed(guest):
    await guest.host.server.stop(0)
    part = await guest.degraded(PARTIAL, "u1")
    assert (part.statuses, part.stand_ins) == ([UNREACHABLE], frozenset())


async def test_without_a_policy_nothing_stands_in(guest):
    part = await guest.degraded(FAIL, "u1", "nobody")
    assert not part.stand_ins
    assert scored(FAIL, np.array([[1.0], [2.0]]), [part]).tolist() == [[1.0], [2.0]]


def test_a_service_has_its_own_policy_or_that_of_the_others():
    fallbacks = Fallbacks({"s": STALE, "default": DEFAULT})
    assert (fallbacks.of("s"), fallbacks.of("t"), fallbacks.of("")) == (STALE, DEFAULT, DEFAULT)
    assert Fallbacks({}).of("s") is FAIL
