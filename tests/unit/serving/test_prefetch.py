import asyncio
from contextlib import asynccontextmanager

import pytest

from apps.app import CacheLevel
from apps.catalog import make_app
from serving.cache.memory import MemoryTier
from serving.cache.tiered import TieredCache
from serving.errors import InvalidRequestError, LimitError, UnknownNameError
from serving.peers.remote import RemotePartials
from serving.pool import ModelPool
from serving.prefetch import Prefetching, PrefetchOutcome
from serving.routing import Routes, RouteTable, ServiceRoute, VariantRoute
from serving.settings import CacheSettings, PeerSettings, Purpose
from tests.unit.serving.peers.host_party import collected, shop

CACHED, FETCHED, NOT_FOUND, MISSING, FAILED, REFUSED = PrefetchOutcome
ADDRESS = ("s", "", "")
APP = make_app("passthrough")


class Watched:
    """A party, and what it was asked for what."""

    def __init__(self, peer):
        self.peer = peer
        self.asked = []

    async def infer(self, model, binding_digest, user_ids, wanted, deadline, purpose=Purpose.INFER):
        self.asked.append((purpose, *user_ids))
        return await self.peer.infer(model, binding_digest, user_ids, wanted, deadline, purpose)

    async def close(self):
        await self.peer.close()


class Rig:
    def __init__(self, host):
        self.host = host
        self.peer = Watched(host.peer)
        self.shared = MemoryTier(1_000, 86_400.0)
        self.remote = RemotePartials(
            "bank",
            {"shop": self.peer},
            TieredCache(MemoryTier(1_000, 600.0), self.shared),
            bytes(32),
            CacheSettings(),
        )
        pool = ModelPool(1 << 20)
        pool.put(host.handle)
        variant = VariantRoute("v", host.handle.id, ((0, 10_000),))
        routes = RouteTable(Routes(APP, services={"s": ServiceRoute("s", 1, b"salt", (variant,), APP)}))
        self.prefetching = Prefetching(routes, pool, self.remote, 50)

    async def outcomes(self, *users, **options):
        return list((await self.prefetching.prefetch(ADDRESS, users, **options)).outcomes)

    async def begun(self, call, calls=1):
        """A task that has come as far as to ask the host, which stalls, or to wait for somebody who did."""
        self.host.answering_now.clear()
        task = asyncio.create_task(call)
        async with asyncio.timeout(5):
            while len(self.host.asked) < calls:
                await asyncio.sleep(0.001)
        return task

    def answer(self, *users, timeout_s=5.0):
        return collected(self.remote, self.host, users, timeout_s)


@asynccontextmanager
async def rig(folder, **allowed):
    async with shop(folder, allowed=PeerSettings(**{"purposes": tuple(Purpose), **allowed})) as host:
        yield Rig(host)


async def test_it_fills_both_levels_by_one_call_for_what_is_missing(tmp_path):
    async with rig(tmp_path) as made:
        assert await made.outcomes("u1", "nobody") == [FETCHED, NOT_FOUND]
        assert await made.outcomes("u2", "u1", "nobody") == [FETCHED, CACHED, NOT_FOUND]
        assert made.host.asked == [["u1", "nobody"], ["u2"]]
        assert len(made.shared) == 3
        found = made.remote.look("shop", made.host.handle, ["u1", "u2"])
        assert found.partials().levels == [CacheLevel.L2, CacheLevel.L2]


async def test_a_dry_run_asks_nobody(tmp_path):
    async with rig(tmp_path) as made:
        assert await made.outcomes("u1", dry_run=True) == [MISSING]
        await made.outcomes("u1")
        assert await made.outcomes("u1", "u2", dry_run=True) == [CACHED, MISSING]
        assert made.host.asked == [["u1"]]


async def test_a_host_that_answers_no_warm_up_refuses_and_says_so(tmp_path):
    async with rig(tmp_path, purposes=(Purpose.INFER,)) as made:
        done = await made.prefetching.prefetch(ADDRESS, ["u1"])
        assert list(done.outcomes) == [REFUSED]
        assert "no warmup calls: see peers.bank.purposes" in done.reason


async def test_a_budget_that_is_spent_refuses_and_what_is_there_stays(tmp_path):
    async with rig(tmp_path, budget=1) as made:
        assert await made.outcomes("u1") == [FETCHED]
        assert await made.outcomes("u1", "u2") == [CACHED, REFUSED]
        assert await made.outcomes("u2", "nobody") == [REFUSED, REFUSED]


async def test_refused_users_come_with_a_reason_also_when_others_are_answered(tmp_path):
    async with rig(tmp_path, budget=1) as made:
        done = await made.prefetching.prefetch(ADDRESS, ["u1", "u2"])
        assert sorted(done.outcomes) == [FETCHED, REFUSED]
        assert "budget" in done.reason


async def test_a_refused_warm_up_fails_no_request(tmp_path):
    async with rig(tmp_path, purposes=(Purpose.INFER,)) as made:
        _, found = await asyncio.gather(made.outcomes("u1"), collected(made.remote, made.host, ["u1"]))
        assert found.complete


async def test_what_is_asked_for_to_answer_is_not_asked_for_again(tmp_path):
    async with rig(tmp_path) as made:
        live = await made.begun(made.answer("u1"))
        warming = await made.begun(made.outcomes("u1", "u2"), calls=2)
        made.host.answering_now.set()
        assert await warming == [FETCHED, FETCHED]
        assert (await live).complete
        assert made.peer.asked == [(Purpose.INFER, "u1"), (Purpose.WARMUP, "u2")]


async def test_an_answer_waits_for_no_warm_up_of_its_user(tmp_path):
    async with rig(tmp_path) as made:
        warming = await made.begun(made.outcomes("u1"))
        live = await made.begun(made.answer("u1"), calls=2)
        assert made.peer.asked == [(Purpose.WARMUP, "u1"), (Purpose.INFER, "u1")]
        made.host.answering_now.set()
        assert (await live).complete
        assert await warming == [FETCHED]


async def test_two_warm_ups_of_a_user_ask_once(tmp_path):
    async with rig(tmp_path) as made:
        first = await made.begun(made.outcomes("u1"))
        second = asyncio.create_task(made.outcomes("u1", "u2"))
        made.host.answering_now.set()
        assert (await first, await second) == ([FETCHED], [FETCHED, FETCHED])
        assert sorted(users for _, *users in made.peer.asked) == [["u1"], ["u2"]]


async def test_of_two_warm_ups_that_fail_together_both_say_why(tmp_path):
    async with rig(tmp_path) as made:
        first = await made.begun(made.prefetching.prefetch(ADDRESS, ["u1"]))
        second = asyncio.create_task(made.prefetching.prefetch(ADDRESS, ["u1"]))
        await asyncio.sleep(0)
        await made.host.server.stop(0)
        for done in (await first, await second):
            assert (list(done.outcomes), done.reason) == ([FAILED], "party 'shop': unreachable")
        assert len(made.peer.asked) == 1


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "is late"])
async def test_a_warm_up_asks_itself_when_who_answers_has_gone_or_had_too_little_time(tmp_path, leaves):
    async with rig(tmp_path) as made:
        live = await made.begun(made.answer("u1", timeout_s=5.0 if leaves else 0.05))
        warming = asyncio.create_task(made.outcomes("u1"))
        await asyncio.sleep(0)
        if leaves:
            live.cancel()
        await asyncio.wait({live})
        made.host.answering_now.set()
        assert await warming == [FETCHED]
        assert made.peer.asked == [(Purpose.INFER, "u1"), (Purpose.WARMUP, "u1")]


async def test_a_warm_up_whose_caller_leaves_ends_no_answer(tmp_path):
    async with rig(tmp_path) as made:
        live = await made.begun(made.answer("u1"))
        warming = asyncio.create_task(made.outcomes("u1"))
        await asyncio.sleep(0)
        warming.cancel()
        await asyncio.wait({warming})
        made.host.answering_now.set()
        assert (await live).complete


async def test_a_warm_up_overhears_until_its_own_deadline(tmp_path):
    async with rig(tmp_path) as made:
        live = await made.begun(made.answer("u1"))
        done = await made.prefetching.prefetch(ADDRESS, ["u1"], remaining_s=0.05)
        assert (list(done.outcomes), done.reason) == ([FAILED], "party 'shop': no answer within the deadline")
        made.host.answering_now.set()
        assert (await live).complete


async def test_a_host_that_is_gone_is_a_failure_of_each_user(tmp_path):
    async with rig(tmp_path) as made:
        await made.host.server.stop(0)
        done = await made.prefetching.prefetch(ADDRESS, ["u1", "u2"])
        assert list(done.outcomes) == [FAILED, FAILED]
        assert done.reason == "party 'shop': unreachable"


@pytest.mark.parametrize(
    ("address", "users", "error"),
    [
        (ADDRESS, [], InvalidRequestError),
        (ADDRESS, ["a", ""], InvalidRequestError),
        (ADDRESS, ["a"] * 51, LimitError),
        (("x", "", ""), ["a"], UnknownNameError),
    ],
)
async def test_what_it_cannot_do_it_refuses(tmp_path, address, users, error):
    async with rig(tmp_path) as made:
        with pytest.raises(error):
            await made.prefetching.prefetch(address, users)
