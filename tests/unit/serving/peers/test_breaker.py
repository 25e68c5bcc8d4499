import asyncio

import pytest

from apps.app import PartyStatus
from loaders.loader import PartialForm, PartialSpec
from serving.peers.breaker import BreakerState, Breaking
from serving.peers.metrics import peer_metrics
from serving.peers.peer import PeerAnswer, failed
from serving.pool import ModelId
from serving.settings import BreakerSettings, Purpose
from tests.clock import Clock

MODEL = ModelId("m", "1")
ONE = PartialSpec(PartialForm.NUMBERS, 1)
OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, MISMATCH, INTERNAL = PartyStatus
CLOSED, OPEN, HALF_OPEN = BreakerState


class Party:
    """Takes `takes_s` of the test's clock and answers with `status`; while `holds` is set it waits."""

    def __init__(self, clock):
        self.clock = clock
        self.status = OK
        self.takes_s = 1.0
        self.asked = 0
        self.holds = None

    async def infer(self, model, digest, user_ids, wanted, deadline, purpose=Purpose.INFER):
        self.asked += 1
        if self.holds is not None:
            await self.holds.wait()
        self.clock.tick(self.takes_s)
        if self.status is OK:
            return PeerAnswer(wanted.blank(len(user_ids)), [OK] * len(user_ids), None)
        return failed(self.status, len(user_ids), wanted, "because")

    async def close(self):
        pass


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def party(clock):
    return Party(clock)


@pytest.fixture
def breaking(party, clock):
    return Breaking(party, BreakerSettings(failures=3, open_s=2.0, min_wait_s=0.5), clock)


async def ask(breaking):
    return (await breaking.infer(MODEL, "ab", ["u1"], ONE, 0.0)).statuses[0]


async def fail(breaking, party, times=3, status=UNREACHABLE):
    party.status = status
    for _ in range(times):
        assert await ask(breaking) is status


@pytest.mark.parametrize("status", [TIMEOUT, UNREACHABLE])
async def test_it_opens_after_failures_in_a_row_and_then_asks_nobody(breaking, party, status):
    await fail(breaking, party, 2, status)
    assert breaking.breaker.state is CLOSED
    await fail(breaking, party, 1, status)
    assert breaking.breaker.state is OPEN
    assert await ask(breaking) is UNREACHABLE
    assert party.asked == 3


async def test_an_answer_between_failures_starts_the_count_again(breaking, party):
    await fail(breaking, party, 2)
    party.status = OK
    assert await ask(breaking) is OK
    await fail(breaking, party, 2)
    assert breaking.breaker.state is CLOSED


@pytest.mark.parametrize("status", [REJECTED, MISMATCH, INTERNAL])
async def test_a_refusal_is_an_answer(breaking, party, status):
    await fail(breaking, party, 9, status)
    assert breaking.breaker.state is CLOSED


async def test_calls_without_an_answer_of_use_are_counted(breaking, party, clock):
    assert await ask(breaking) is OK
    await fail(breaking, party, 2, REJECTED)
    await fail(breaking, party, 3, TIMEOUT)
    assert breaking.breaker.state is OPEN
    await ask(breaking)
    [shown] = [one for one in peer_metrics({}, {"shop": breaking}) if one.name == "tessera_peer_failed"]
    assert [(one.labels, one.value) for one in shown.samples] == [({"party": "shop"}, 6.0)]


async def ask_for_rows(breaking, party, clock, *statuses, took_s=1.0):
    """Of one call, whose rows came in several packets."""

    async def rows_apart(model, digest, user_ids, wanted, deadline, purpose):
        clock.tick(took_s)
        reasons = ["because" if status else "" for status in statuses]
        return PeerAnswer(wanted.blank(len(statuses)), statuses, None, "because", reasons=reasons)

    party.infer = rows_apart
    await breaking.infer(MODEL, "ab", ["u"] * len(statuses), ONE, 0.0)


@pytest.mark.parametrize("statuses", [(UNREACHABLE, OK), (OK, UNREACHABLE), (TIMEOUT, REJECTED), (NOT_FOUND,)])
async def test_a_party_that_answers_for_some_rows_answers(breaking, party, clock, statuses):
    for _ in range(3):
        await ask_for_rows(breaking, party, clock, *statuses)
    assert (breaking.failed, breaking.breaker.state) == (0, CLOSED)


async def test_a_party_that_answers_for_no_row_fails(breaking, party, clock):
    for statuses in ((UNREACHABLE, TIMEOUT), (TIMEOUT, UNREACHABLE), (TIMEOUT, TIMEOUT)):
        await ask_for_rows(breaking, party, clock, *statuses)
    assert (breaking.failed, breaking.breaker.state) == (3, OPEN)


async def test_rows_that_are_all_late_for_an_impatient_caller_tell_nothing_of_the_party(breaking, party, clock):
    for statuses in 3 * [(TIMEOUT, TIMEOUT)]:
        await ask_for_rows(breaking, party, clock, *statuses, took_s=0.4)
    assert breaking.breaker.state is CLOSED
    for statuses in 3 * [(TIMEOUT, UNREACHABLE)]:
        await ask_for_rows(breaking, party, clock, *statuses, took_s=0.4)
    assert breaking.breaker.state is OPEN


async def test_one_call_finds_out_while_the_others_are_refused(breaking, party, clock):
    await fail(breaking, party)
    clock.tick(2.0)
    party.status, party.holds = OK, asyncio.Event()
    probe = asyncio.ensure_future(ask(breaking))
    await asyncio.sleep(0)
    assert breaking.breaker.state is HALF_OPEN
    assert await ask(breaking) is UNREACHABLE
    party.holds.set()
    assert await probe is OK
    assert breaking.breaker.state is CLOSED
    assert party.asked == 4


async def test_it_opens_again_when_the_probe_fails(breaking, party, clock):
    await fail(breaking, party)
    clock.tick(2.0)
    assert await ask(breaking) is UNREACHABLE
    assert (breaking.breaker.state, party.asked, breaking.breaker.opened) == (OPEN, 4, 2)
    clock.tick(1.9)
    await ask(breaking)
    assert party.asked == 4


async def test_a_probe_that_nobody_waits_for_leaves_the_place_to_another(breaking, party, clock):
    await fail(breaking, party)
    clock.tick(2.0)
    party.status, party.holds = OK, asyncio.Event()
    probe = asyncio.ensure_future(ask(breaking))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.wait((probe,))
    party.holds = None
    assert await ask(breaking) is OK
    assert breaking.breaker.state is CLOSED


async def test_impatient_callers_do_not_take_the_party_from_others(breaking, party):
    party.takes_s = 0.4
    await fail(breaking, party, 9, TIMEOUT)
    assert breaking.breaker.state is CLOSED


async def test_calls_that_were_given_up_after_a_while_count(breaking, party, clock):
    party.holds = asyncio.Event()
    for _ in range(3):
        call = asyncio.ensure_future(ask(breaking))
        await asyncio.sleep(0)
        clock.tick(0.5)
        call.cancel()
        await asyncio.wait((call,))
    assert (breaking.failed, breaking.breaker.state) == (3, OPEN)


async def test_calls_sent_before_it_opened_close_it_when_they_are_answered(breaking, party):
    party.holds = asyncio.Event()
    slow = asyncio.ensure_future(ask(breaking))
    await asyncio.sleep(0)
    party.holds, held = None, party.holds
    await fail(breaking, party)
    party.status = OK
    held.set()
    assert await slow is OK
    assert breaking.breaker.state is CLOSED


async def asked_before_it_opens(breaking, party, calls=2):
    """Calls that are on their way, to fail; the breaker opens meanwhile. Returns them and what lets them go."""
    held = party.holds = asyncio.Event()
    late = [asyncio.ensure_future(ask(breaking)) for _ in range(calls)]
    await asyncio.sleep(0)
    party.holds = None
    await fail(breaking, party)
    return late, held


async def test_late_failures_of_calls_sent_before_it_opened_do_not_make_the_pause_longer(breaking, party):
    late, held = await asked_before_it_opens(breaking, party)
    held.set()
    await asyncio.gather(*late)
    assert (breaking.breaker.state, breaking.breaker.opened) == (OPEN, 1)
    party.status = OK  # the two took the 2 s of the pause
    assert await ask(breaking) is OK


@pytest.mark.parametrize("given_up", [False, True])
async def test_late_failures_of_calls_sent_before_it_opened_leave_the_probe_alone(breaking, party, clock, given_up):
    late, held = await asked_before_it_opens(breaking, party)
    clock.tick(2.0)
    party.holds = asyncio.Event()
    probe = asyncio.ensure_future(ask(breaking))
    await asyncio.sleep(0)
    assert breaking.breaker.state is HALF_OPEN
    if given_up:
        for call in late:
            call.cancel()
    held.set()
    await asyncio.wait(late)
    assert (breaking.breaker.state, breaking.breaker.opened) == (HALF_OPEN, 1)
    party.status = OK
    party.holds.set()
    assert await probe is OK
    assert breaking.breaker.state is CLOSED


async def test_impatient_calls_sent_before_it_opened_let_no_second_probe_go(party, clock):
    breaking = Breaking(party, BreakerSettings(failures=3, open_s=0.1, min_wait_s=0.5), clock)
    party.takes_s = 0.05
    late, held = await asked_before_it_opens(breaking, party, 1)
    clock.tick(0.1)
    party.holds = asyncio.Event()
    probe = asyncio.ensure_future(ask(breaking))
    await asyncio.sleep(0)
    party.status = TIMEOUT
    held.set()
    assert await late[0] is TIMEOUT
    assert breaking.breaker.state is HALF_OPEN
    party.holds.set()
    await probe
