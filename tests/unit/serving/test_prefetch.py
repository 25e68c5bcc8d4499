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


class Rig:
    def __init__(self, host):
        self.host = host
        self.shared = MemoryTier(1_000, 86_400.0)
        self.remote = RemotePartials(
            "bank",
            {"shop": host.peer},
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
