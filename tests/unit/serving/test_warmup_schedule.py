"""The service's own warm-up, on a clock of the test: when it runs, who runs it, where it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from serving.activity import Active
from serving.control import MemoryControlStore
from serving.errors import UnknownNameError
from serving.leases import Lease
from serving.prefetch import Prefetched, PrefetchOutcome
from serving.readings import warmup_metrics
from serving.replicas import Replicas
from serving.settings import WarmupSettings
from serving.timetable import Timetable
from serving.warmup_schedule import (
    DAY_S,
    GO_ON_S,
    LEASE_S,
    LONGEST_S,
    LOOK_S,
    MAKE_UP_S,
    RENEW_S,
    WORK,
    Run,
    ServiceRun,
    WarmupSchedule,
    next_run,
)
from tests.clock import Clock
from tests.unit.serving.test_readings import shown

THREE = 20_000 * DAY_S + 3 * 3_600
TABLE = Timetable("0 3 * * *", "UTC")
USERS = [f"u{number}" for number in range(10)]
FETCHED, REFUSED = PrefetchOutcome.FETCHED, PrefetchOutcome.REFUSED


class Party:
    """The activity and the hosts of one party, and the replicas that share its control store. `said`: outcomes of
    users, else FETCHED; `before`: what happens before a batch is answered."""

    max_rows = 4

    def __init__(self) -> None:
        self.clock = Clock(THREE + 5.0)
        self.store = MemoryControlStore(self.clock)
        self.asked: list[str] = []
        self.days: list[tuple[int, int]] = []
        self.said: dict[str, PrefetchOutcome] = {}
        self.before: Callable[[], None] = lambda: None
        self.unknown: set[str] = set()
        self.activity = self.prefetching = self

    def replica(self, name: str, services: Sequence[str] = ("s",)) -> WarmupSchedule:
        made = WarmupSettings(schedule="0 3 * * *", share=1.0, users_per_s=4.0)
        replicas = Replicas("bank", name, self.store)
        return WarmupSchedule(made, replicas, self, lambda: services, self.clock, self.pause)  # type: ignore[arg-type]

    async def pause(self, seconds: float) -> None:
        if seconds == RENEW_S:
            await asyncio.Event().wait()
        self.clock.tick(seconds)

    async def top(self, service: str, days: tuple[int, int], offset: int, limit: int) -> Active:
        self.days.append(days)
        return Active(USERS, [1] * len(USERS), len(USERS), len(USERS))

    async def prefetch(self, address: tuple[str, str, str], user_ids: Sequence[str]) -> Prefetched:
        if address[0] in self.unknown:
            raise UnknownNameError(f"unknown service {address[0]!r}")
        self.before()
        self.asked += user_ids
        outcomes = [self.said.get(one, FETCHED) for one in user_ids]
        return Prefetched(outcomes, "party 'shop': no" if REFUSED in outcomes else "")


@pytest.fixture
def party() -> Party:
    return Party()


@pytest.mark.parametrize(
    ("last", "now_s", "expected"),
    [
        pytest.param(Run(), THREE, Run(due=THREE, began_s=THREE), id="never ran"),
        pytest.param(Run(due=THREE, ended_s=1.0), THREE + 9, None, id="ended"),
        pytest.param(Run(), THREE + MAKE_UP_S + 1, None, id="missed too long ago"),
        pytest.param(Run(due=THREE), THREE + MAKE_UP_S + 1, Run(due=THREE), id="goes on although late"),
        pytest.param(Run(due=THREE - 60), THREE, Run(due=THREE - 60), id="goes on before a newer time"),
        pytest.param(Run(due=THREE - int(GO_ON_S)), THREE, Run(due=THREE, began_s=THREE), id="left for good"),
        pytest.param(Run(due=THREE + 60, ended_s=1.0), THREE, None, id="another clock is ahead"),
    ],
)
def test_what_is_due(last: Run, now_s: float, expected: Run | None) -> None:
    assert next_run(last, THREE, now_s) == expected


async def test_it_runs_once_whoever_looks(party: Party) -> None:
    one, other = party.replica("one"), party.replica("other")
    await one.look(TABLE)
    await other.look(TABLE)
    assert party.asked == USERS
    assert party.days == [(THREE // DAY_S - 7, THREE // DAY_S - 1)]
    assert one.last == other.last
    assert (one.last.due, one.last.by, one.last.services["s"].ended) == (THREE, "one", True)
    party.clock.now = THREE + DAY_S
    await other.look(TABLE)
    assert party.asked == USERS * 2
    assert other.last.due == THREE + DAY_S


async def test_it_waits_for_the_next_time_but_not_longer_than_a_minute(party: Party) -> None:
    one = party.replica("one")
    await one.look(TABLE)
    assert await one.look(TABLE) == LONGEST_S
    party.clock.now = THREE + DAY_S - 7.5
    assert await one.look(TABLE) == 7.5


async def test_while_another_replica_has_the_lease_it_looks_on(party: Party) -> None:
    one = party.replica("one")
    assert party.store.leases.acquire(WORK, "other", LEASE_S) is not None
    assert await one.look(TABLE) == LOOK_S
    assert party.asked == []
    party.clock.tick(LEASE_S)
    await one.look(TABLE)
    assert party.asked == USERS


class KilledError(Exception):
    pass


async def killed(party: Party, replica: WarmupSchedule, after: int) -> None:
    """As SIGKILL: the lease is not given back, nothing is noted any more."""
    release, party.store.leases.release = party.store.leases.release, lambda lease: None  # type: ignore[method-assign]

    def die() -> None:
        if len(party.asked) >= after:
            raise KilledError

    party.before = die
    with pytest.raises(ExceptionGroup) as raised:
        await replica.look(TABLE)
    assert raised.group_contains(KilledError)
    party.before, party.store.leases.release = lambda: None, release  # type: ignore[method-assign]


async def test_another_goes_on_from_the_cursor_of_one_that_died(party: Party) -> None:
    one, other = party.replica("one"), party.replica("other")
    await killed(party, one, after=8)
    assert await other.look(TABLE) == LOOK_S, "the lease of the dead lasts"
    party.clock.tick(LEASE_S)
    await other.look(TABLE)
    assert party.asked == USERS
    assert other.users == {"fetched": 2}
    done = other.last.services["s"].progress
    assert (done.done, done.fetched, other.last.by, other.last.began_s) == (10, 10, "other", THREE + 5.0)


async def test_services_that_were_done_are_not_done_again(party: Party) -> None:
    one, other = party.replica("one", ("a", "b")), party.replica("other", ("a", "b"))
    await killed(party, one, after=14)
    party.clock.tick(LEASE_S)
    await other.look(TABLE)
    assert party.asked == USERS + USERS
    assert {name: run.ended for name, run in other.last.services.items()} == {"a": True, "b": True}


async def test_who_stalls_longer_than_its_lease_writes_nothing_any_more(party: Party) -> None:
    one, other = party.replica("one"), party.replica("other")
    taken: list[Lease | None] = []

    def stall() -> None:
        if len(party.asked) == 4:
            party.clock.tick(LEASE_S)
            taken.append(party.store.leases.acquire(WORK, "other", LEASE_S))

    party.before = stall
    await one.look(TABLE)
    assert taken[0] is not None
    assert party.asked == USERS[:8], "one batch was on its way"
    party.before = lambda: None
    party.store.leases.release(taken[0])
    await other.look(TABLE)
    assert party.asked == USERS[:8] + USERS[4:], "what was not noted comes again"
    assert one.running is other.running is False


async def test_the_lease_is_renewed_while_a_batch_takes_long(party: Party) -> None:
    one = party.replica("one")
    renewed, answer = asyncio.Queue[float](), asyncio.Event()

    async def pause(seconds: float) -> None:
        party.clock.tick(seconds)
        renewed.put_nowait(party.clock())
        await asyncio.sleep(0)

    async def prefetch(address: object, user_ids: Sequence[str]) -> Prefetched:
        await answer.wait()
        return Prefetched([FETCHED] * len(user_ids))

    one._pause, party.prefetch = pause, prefetch  # type: ignore[method-assign, assignment]
    looking = asyncio.create_task(one.look(TABLE))
    began = party.clock()
    while await renewed.get() < began + 5 * LEASE_S:
        assert party.store.leases.acquire(WORK, "other", LEASE_S) is None
    answer.set()
    await looking
    assert one.last.ended_s


async def test_stopping_lets_another_go_on_at_once(party: Party) -> None:
    one, other = party.replica("one"), party.replica("other")
    reached = asyncio.Event()

    async def prefetch(address: object, user_ids: Sequence[str]) -> Prefetched:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    answering, party.prefetch = party.prefetch, prefetch  # type: ignore[method-assign]
    one.start()
    await reached.wait()
    await one.stop()
    party.prefetch = answering  # type: ignore[method-assign]
    await other.look(TABLE)
    assert other.last.by == "other"
    assert party.asked == USERS


async def test_a_refusal_ends_the_service_and_is_told_until_the_next_run(party: Party) -> None:
    one = party.replica("one", services=("a", "b"))
    party.said = dict.fromkeys(USERS[4:], REFUSED)
    await one.look(TABLE)
    assert [problem.partition(":")[0] for problem in one.problems()] == [
        f"the last warm-up of service {name!r} did not come to its end" for name in ("a", "b")
    ]
    assert one.last.ended_s, "it is not tried again before the next time"
    party.said = {}
    party.clock.now = THREE + DAY_S
    await one.look(TABLE)
    assert list(one.problems()) == []


async def test_a_service_that_is_not_online_keeps_none_of_the_others(party: Party) -> None:
    party.unknown = {"gone"}
    one = party.replica("one", ("gone", "s"))
    await one.look(TABLE)
    assert one.last.stopped == {"gone": "unknown service 'gone'"}
    assert one.last.services["s"].progress.fetched == len(USERS)


async def test_settings_name_the_services(party: Party) -> None:
    made = WarmupSettings(schedule="0 3 * * *", services=("b", "a"))
    replicas = Replicas("bank", "one", party.store)
    one = WarmupSchedule(made, replicas, party, lambda: ("s",), party.clock, party.pause)  # type: ignore[arg-type]
    await one.look(TABLE)
    assert list(one.last.services) == ["b", "a"]


async def test_notes_of_another_version_count_as_nothing(party: Party) -> None:
    held = party.store.leases.acquire(WORK, "new", 0.0)
    assert held is not None
    party.store.leases.note(held, b'{"due": "tomorrow"}')
    await party.replica("one").look(TABLE)
    assert party.asked == USERS


async def test_without_a_schedule_nothing_starts(party: Party) -> None:
    replicas = Replicas("bank", "one", party.store)
    one = WarmupSchedule(WarmupSettings(), replicas, party, list, party.clock, party.pause)  # type: ignore[arg-type]
    one.start()
    await one.stop()
    assert shown(partial(warmup_metrics, one)) == []
    assert party.asked == []


async def test_metrics_tell_the_last_run(party: Party) -> None:
    one, other = party.replica("one"), party.replica("other")
    assert shown(partial(warmup_metrics, one)) == ["tessera_warmup_running 0.0"]
    party.said = {"u9": PrefetchOutcome.NOT_FOUND}
    await one.look(TABLE)
    await other.look(TABLE)
    lines = shown(partial(warmup_metrics, one))
    assert 'tessera_warmup_users_total{outcome="fetched"} 9.0' in lines
    assert 'tessera_warmup_users_total{outcome="not_found"} 1.0' in lines
    last = [line for line in lines if "last_run" in line]
    assert float(last[0].split()[1]) == one.last.ended_s
    assert 'tessera_warmup_last_run_stopped{service="s"} 0.0' in last
    assert 'tessera_warmup_last_run_fetched_users{service="s"} 9.0' in last
    assert [line for line in shown(partial(warmup_metrics, other)) if "last_run" in line] == last


def test_a_run_says_what_stopped() -> None:
    assert Run(services={"s": ServiceRun()}).stopped == {}
