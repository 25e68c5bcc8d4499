"""Replicas that begin while the state changes, follow it, and cannot."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from serving.app_shelf import AppShelf
from serving.control import FileControlStore, MemoryControlStore, State
from serving.lifecycle import LoadState
from serving.load_time import LoadTime
from serving.pool import ModelId, ModelPool
from serving.publishing import Publishing
from serving.reconciler import Reconciler
from serving.replicas import Replicas
from serving.reports import ReplicaModel, ReplicaReport
from serving.settings import AppSettings
from tests.clock import Clock
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import running

V1 = ModelId("m", "1")


async def test_what_was_published_while_it_began_is_there_before_it_is_ready(tmp_path: Path) -> None:
    await asyncio.to_thread(publish, {"bank": tmp_path}, V1)
    own, shared = await asyncio.to_thread(lambda: [FileControlStore(tmp_path / "state") for _ in range(2)])
    async with running("bank", tmp_path, own, replica="0") as first:
        pool = ModelPool(1 << 20)
        reconciler = Reconciler(tmp_path, "bank", pool, apps=AppShelf(AppSettings()))
        replicas = Replicas("bank", "1", shared)
        second = await asyncio.to_thread(Publishing, replicas, reconciler, pool, {}, 10.0)
        await first.publishing.load(V1)  # nobody waits for a replica that has not reported yet
        second.restore()
        await second.caught_up()
        try:
            assert pool.find(V1) is not None
            assert {report.replica for report in await asyncio.to_thread(own.reports)} == {"0", "1"}
        finally:
            await replicas.stop()
            await reconciler.stop()


async def for_ever(_: float) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture
def store() -> MemoryControlStore:
    return MemoryControlStore()


def told(replica: str, node: str) -> ReplicaReport:
    return ReplicaReport(replica=replica, revision=0, generation="1", node=node)


async def test_living_nodes_are_counted_whatever_their_workers(store: MemoryControlStore) -> None:
    nodes: list[int] = []
    replicas = Replicas("bank", "here/0", store, pause=for_ever, node="here")
    replicas.watch_nodes(nodes.append)
    await replicas.look()
    for one in (told("here/1", "here"), told("there/0", "there"), told("there/1", "there"), told("older", "")):
        store.report(one)
    await replicas.look()
    store.withdraw(told("there/0", "there"))
    await replicas.look()
    assert nodes == [3]
    store.withdraw(told("there/1", "there"))
    await replicas.look()
    await replicas.look()
    assert nodes == [3, 2]
    assert {report.node for report in store.reports() if report.replica == "here/0"} == {"here"}


class Follower:
    """Follows the state, or breaks."""

    def __init__(self) -> None:
        self.broken = False
        self.followed = 0

    def __call__(self) -> None:
        if self.broken:
            raise ValueError("secret detail")
        self.followed += 1


async def test_a_replica_reports_what_it_follows_and_tries_again_what_it_could_not(
    store: MemoryControlStore, caplog: pytest.LogCaptureFixture
) -> None:
    replicas, follower = Replicas("bank", "here", store, pause=for_ever), Follower()
    replicas.start(dict, follower)
    await replicas.look()
    follower.broken = True
    store.compare_and_set(0, State())
    await replicas.look()
    assert [report.revision for report in store.reports()] == [0]
    [problem] = replicas.problems()
    assert "the state of revision 1 cannot be followed (ValueError" in problem
    assert "this replica serves the state of revision 0" in problem
    assert "secret detail" in caplog.text
    follower.broken = False
    await replicas.look()
    assert follower.followed == 1
    assert [report.revision for report in store.reports()] == [1]
    assert not list(replicas.problems())
    await replicas.stop()


async def test_a_worker_and_its_successor_see_each_other_under_one_name(store: MemoryControlStore) -> None:
    old, new = (Replicas("bank", "here/0", store, pause=for_ever) for _ in range(2))
    assert old.generation < new.generation
    old.start(lambda: {"m/1": ReplicaModel("READY")}, Follower())
    new.start(lambda: {"m/1": ReplicaModel("LOADING")}, Follower())
    for one in (old, new):
        await one.look()
    states = {report.generation: report.models["m/1"].state for report in store.reports()}
    assert states == {old.generation: "READY", new.generation: "LOADING"}
    [outcome] = await old.load(V1, 0, LoadTime.of(0.01))
    assert (outcome.replica, outcome.state) == ("here/0", LoadState.FAILED)
    await new.stop()
    assert [report.generation for report in store.reports()] == [old.generation]
    await old.stop()
    assert store.reports() == []


class SlowToReport(MemoryControlStore):
    """A report waits until it may be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = threading.Event(), threading.Event()

    def report(self, report: ReplicaReport) -> None:
        self.asked.set()
        assert self.may.wait(10)
        super().report(report)


async def test_a_replica_that_stops_while_it_reports_is_not_seen_afterwards() -> None:
    store = SlowToReport()
    replicas = Replicas("bank", "here", store, pause=for_ever)
    replicas.start(dict, Follower())
    assert await asyncio.to_thread(store.asked.wait, 10)
    stopping = asyncio.ensure_future(replicas.stop())
    await asyncio.wait({stopping}, timeout=0.05)
    store.may.set()
    await stopping
    assert store.reports() == []


async def test_what_others_said_grows_old_while_nothing_is_heard_of_them(store: MemoryControlStore) -> None:
    now = Clock()
    replicas = Replicas("bank", "here", store, clock=now, pause=for_ever)
    store.report(ReplicaReport(replica="there", revision=0))
    await replicas.look()
    now.tick(3)
    own, other = replicas.heard()
    assert (own.replica, own.age_s) == ("here", 0)
    assert 3 <= other.age_s < 4
