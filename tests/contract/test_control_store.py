"""What every ControlStore keeps to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from serving.control import (
    Binding,
    ControlStore,
    FileControlStore,
    Hold,
    MemoryControlStore,
    Service,
    State,
    Variant,
    WantedApp,
    WantedLimit,
    WantedModel,
)
from serving.control_redis import RedisControlStore
from serving.errors import ConflictError
from serving.leases import LeaseLostError
from serving.reports import ReplicaModel, ReplicaReport
from tests.redis_server import DURABLE, redis_server

Maker = Callable[[str], ControlStore]
"""A store as the replica of this name sees it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that keeps everything."""
    with redis_server(tmp_path_factory.mktemp("redis"), **DURABLE) as url:
        yield url


@pytest.fixture(params=["memory", "file", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    made: list[ControlStore] = []
    memory = MemoryControlStore()

    def on_redis(replica: str) -> ControlStore:
        local = FileControlStore(tmp_path / replica)
        return RedisControlStore(request.getfixturevalue("server"), tmp_path.name.lower(), local)

    makers: dict[str, Maker] = {
        "memory": lambda replica: memory,
        "file": lambda replica: FileControlStore(tmp_path / "state"),
        "redis": on_redis,
    }

    def one(replica: str) -> ControlStore:
        made.append(makers[request.param](replica))
        return made[-1]

    yield one
    for store in made:
        store.close()


@pytest.fixture
def store(make: Maker) -> ControlStore:
    return make("one")


BINDING = Binding(
    variants=(Variant(model="m", version="1", weight=10_000, ranges=((0, 4_000), (4_000, 10_000))),),
    app="scorecard",
    app_parameters='{"offset": 600}',
)
FULL = State(
    models=(WantedModel(model="m", version="1", epoch=3),),
    services={"credit": Service(revision=2, epoch=4, salt="00ff", current=BINDING, previous=BINDING)},
    default_service="credit",
    apps=(WantedApp(name="risk", version="1", digest="00ff", epoch=2),),
    holds=(Hold(party="bank", service="s", model="m", version="1", revision=7, expires_s=1.7e9),),
    limits={"service": {"credit": WantedLimit(per_s=0.5, burst=3)}, "caller": {"default": WantedLimit(concurrent=2)}},
)


def test_a_new_store_is_empty(store: ControlStore) -> None:
    assert store.read() == State()
    assert store.read().revision == 0


def test_what_was_set_is_read(store: ControlStore) -> None:
    stored = store.compare_and_set(0, FULL)
    assert stored == msgspec.structs.replace(FULL, revision=1)
    assert store.read() == stored


def test_the_revision_rises_by_one_whatever_the_caller_says(store: ControlStore) -> None:
    store.compare_and_set(0, State(revision=77))
    assert store.read().revision == 1
    store.compare_and_set(1, State())
    assert store.read().revision == 2


@pytest.mark.parametrize("seen", [0, 2])
def test_a_stale_revision_is_refused_and_changes_nothing(store: ControlStore, seen: int) -> None:
    before = store.compare_and_set(0, FULL)
    with pytest.raises(ConflictError, match="it is at revision 1"):
        store.compare_and_set(seen, State())
    assert store.read() == before


def test_of_many_writers_at_once_one_wins(store: ControlStore) -> None:
    won: list[str] = []
    start = threading.Barrier(8)

    def write(name: str) -> None:
        start.wait()
        try:
            store.compare_and_set(0, State(default_service=name))
        except ConflictError:
            return
        won.append(name)

    writers = [threading.Thread(target=write, args=(f"s{number}",)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert won == [store.read().default_service]
    assert store.read().revision == 1


def test_one_replica_sees_what_another_stored(make: Maker) -> None:
    one, other = make("one"), make("other")
    one.compare_and_set(0, FULL)
    other.refresh()
    assert other.read() == one.read() == msgspec.structs.replace(FULL, revision=1)
    assert make("late").read() == one.read()


def test_a_change_of_a_replica_that_was_overtaken_is_refused_and_then_it_knows(make: Maker) -> None:
    one, other = make("one"), make("other")
    one.compare_and_set(0, FULL)
    with pytest.raises(ConflictError, match="it is at revision 1"):
        other.compare_and_set(0, State())
    assert other.read() == one.read()
    other.compare_and_set(1, State())
    one.refresh()
    assert one.read() == State(revision=2)


def test_replicas_report(make: Maker) -> None:
    one, other = make("one"), make("other")
    assert one.reports() == []
    first = ReplicaReport(
        replica="b/0",
        revision=1,
        models={"m/1": ReplicaModel("READY", "", "00ff")},
        apps={"a:1": ReplicaModel("FAILED", "why")},
    )
    second = ReplicaReport(replica="a.example/1", revision=0)
    one.report(first)
    other.report(second)
    assert said(one) == said(other) == [second, first]
    later = msgspec.structs.replace(first, revision=2)
    one.report(later)
    assert said(other) == [second, later]
    assert all(0 <= report.age_s < 5 for report in other.reports())


def said(store: ControlStore) -> list[ReplicaReport]:
    return [msgspec.structs.replace(report, age_s=0.0) for report in store.reports()]


def test_processes_of_one_name_report_beside_each_other_and_withdraw_their_own(make: Maker) -> None:
    one, other = make("one"), make("other")
    old, new = (ReplicaReport(replica="b/0", generation=generation, revision=1) for generation in ("1", "2"))
    one.report(old)
    other.report(new)
    assert said(one) == [old, new]
    one.withdraw(old)
    one.withdraw(old)
    assert said(one) == said(other) == [new]


def test_a_lease_is_one_replica_s_until_it_is_released(make: Maker) -> None:
    one, other = make("one").leases, make("other").leases
    held = one.acquire("work", "one", 100.0)
    assert held is not None
    assert (held.name, held.holder, held.token) == ("work", "one", 1)
    assert other.acquire("work", "other", 100.0) is None
    assert one.acquire("work", "one", 100.0) is None, "a process that was replaced has no part in it"
    assert other.acquire("other work", "other", 100.0) is not None
    one.release(held)
    taken = other.acquire("work", "other", 100.0)
    assert taken is not None
    assert taken.token == 2


def test_a_lease_that_is_over_can_be_taken_or_renewed(make: Maker) -> None:
    one, other = make("one").leases, make("other").leases
    held = one.acquire("work", "one", 0.0)
    assert held is not None
    one.renew(held, 100.0)
    assert other.acquire("work", "other", 100.0) is None
    one.renew(held, 0.0)
    assert other.acquire("work", "other", 100.0) is not None


def test_what_an_earlier_holder_writes_is_refused(make: Maker) -> None:
    one, other = make("one").leases, make("other").leases
    early = one.acquire("work", "one", 0.0)
    late = other.acquire("work", "other", 100.0)
    assert early is not None
    assert late is not None
    other.note(late, b"late")
    with pytest.raises(LeaseLostError, match="'work' from 'one'"):
        one.note(early, b"early")
    with pytest.raises(LeaseLostError):
        one.renew(early, 100.0)
    one.release(early)
    assert one.notes("work") == b"late"
    assert one.acquire("work", "one", 100.0) is None, "nothing of it ended the other's lease"


def test_notes_are_there_for_the_next_holder_whatever_they_are(make: Maker) -> None:
    one, other = make("one").leases, make("other").leases
    assert one.notes("work") == b""
    held = one.acquire("work", "one", 0.0)
    assert held is not None
    for notes in (b"\x00\xff{}", b"second"):
        one.note(held, notes)
        assert other.notes("work") == notes
    assert other.acquire("work", "other", 100.0) is not None
    assert other.notes("work") == b"second"
    assert other.notes("other work") == b""


def test_of_many_at_once_one_gets_the_lease(make: Maker) -> None:
    stores = [make(f"r{number}") for number in range(8)]
    start = threading.Barrier(len(stores))
    got: list[int] = []

    def take(store: ControlStore, name: str) -> None:
        start.wait()
        held = store.leases.acquire("work", name, 100.0)
        if held is not None:
            got.append(held.token)

    takers = [threading.Thread(target=take, args=(store, str(n))) for n, store in enumerate(stores)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert got == [1]


def test_leases_leave_the_state_alone(store: ControlStore) -> None:
    before = store.compare_and_set(0, FULL)
    held = store.leases.acquire("work", "one", 100.0)
    assert held is not None
    store.leases.note(held, b"notes")
    store.refresh()
    assert store.read() == before
