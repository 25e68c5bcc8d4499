"""Calls merged in front of a scripted party, with a clock that tests set."""

import asyncio
import gc
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.app import PartyStatus
from loaders.loader import PartialForm, PartialSpec
from serving.peers.batching import CLOSED, FULL, Batcher
from serving.peers.peer import LATE, PeerAnswer
from serving.pool import ModelId
from serving.settings import BatchSettings, Purpose
from tests.clock import Clock

MODEL, OTHER = ModelId("m", "1"), ModelId("m", "2")
ONE = PartialSpec(PartialForm.NUMBERS, 1)
OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, _, _ = PartyStatus


@dataclass
class OnWire:
    model: ModelId
    user_ids: list
    deadline: float
    purpose: Purpose
    reply: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def answer(self):
        """Each row's value is its user's number."""
        values = np.array([[float(user.removeprefix("u"))] for user in self.user_ids])
        self.reply.set_result(PeerAnswer(values, [OK] * len(values), list(range(len(values)))))


class Party:
    """Holds every call until the test answers it."""

    def __init__(self):
        self.calls = []
        self.closed = False

    async def infer(self, model, digest, user_ids, wanted, deadline, purpose=Purpose.INFER):
        self.calls.append(OnWire(model, list(user_ids), deadline, purpose))
        return await self.calls[-1].reply

    async def close(self):
        self.closed = True

    @property
    def users(self):
        return [call.user_ids for call in self.calls]


class Asking:
    def __init__(self, **limits):
        self.clock = Clock()
        self.party = Party()
        self.batcher = Batcher(self.party, BatchSettings(**{"in_flight": 1, **limits}), self.clock)

    def ask(self, *users, left_s=10.0, model=MODEL, purpose=Purpose.INFER):
        call = self.batcher.infer(model, "ab", users, ONE, self.clock.now + left_s, purpose)
        return asyncio.ensure_future(call)


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


async def test_what_was_answered_is_gone_at_once():
    """Not when the interpreter looks for cycles, once a hundred thousand objects have piled up."""
    asking = Asking()
    asked = [asking.ask("u1"), asking.ask("u2")]
    await settle()
    first = weakref.ref(asked[0])
    gc.disable()
    try:
        asking.party.calls.pop().answer()
        await asyncio.gather(*asked)
        asked.clear()
        await settle()
        assert first() is None
    finally:
        gc.enable()


async def test_what_comes_in_one_turn_goes_in_one_call_and_each_gets_its_own_rows():
    asking = Asking()
    asked = [asking.ask("u1"), asking.ask("u2", "u3"), asking.ask("u4")]
    await settle()
    assert asking.party.users == [["u1", "u2", "u3", "u4"]]
    asking.party.calls[0].answer()
    answers = await asyncio.gather(*asked)
    assert [answer.values[:, 0].tolist() for answer in answers] == [[1.0], [2.0, 3.0], [4.0]]
    assert [answer.max_age_ms for answer in answers] == [[0], [1, 2], [3]]


async def test_an_idle_party_is_called_at_once_and_the_next_collect_meanwhile():
    asking = Asking(max_rows=3)
    first = asking.ask("u1")
    await settle()
    later = [asking.ask(f"u{number}") for number in range(2, 7)]
    await settle()
    assert asking.party.users == [["u1"]]
    asking.party.calls[0].answer()
    await first
    await settle()
    assert asking.party.users[1:] == [["u2", "u3", "u4"]]
    asking.party.calls[1].answer()
    await settle()
    assert asking.party.users[2:] == [["u5", "u6"]]
    asking.party.calls[2].answer()
    assert [one.result().values[0, 0] for one in await asyncio.wait_for(_all(later), 1)] == [2.0, 3.0, 4.0, 5.0, 6.0]


async def _all(tasks):
    await asyncio.wait(tasks)
    return tasks


async def test_as_many_batches_as_allowed_are_on_the_wire():
    asking = Asking(in_flight=2)
    for number in range(3):
        asking.ask(f"u{number}")
        await settle()
    assert asking.party.users == [["u0"], ["u1"]]
    await asking.batcher.close()


async def test_versions_are_not_merged_and_take_turns_and_what_nobody_waits_for_comes_last():
    asking = Asking(max_rows=1)
    kinds = [(MODEL, Purpose.INFER)] * 2 + [(OTHER, Purpose.INFER), (MODEL, Purpose.SHADOW)]
    for number, (model, purpose) in enumerate(kinds):
        asking.ask(f"u{number}", model=model, purpose=purpose)
    for _ in kinds:
        await settle()
        asking.party.calls[-1].answer()
    await settle()
    assert asking.party.users == [["u0"], ["u2"], ["u1"], ["u3"]]
    assert [call.purpose for call in asking.party.calls].count(Purpose.SHADOW) == 1


@pytest.mark.parametrize("purpose", [Purpose.SHADOW, Purpose.WARMUP])
async def test_calls_that_nobody_waits_for_leave_room_for_answers(purpose):
    asking = Asking(in_flight=2, max_rows=1)
    for number in range(3):
        asking.ask(f"u{number}", purpose=purpose)
    await settle()
    assert asking.party.users == [["u0"]]
    answer = asking.ask("u9")
    await settle()
    assert asking.party.users == [["u0"], ["u9"]]
    asking.party.calls[1].answer()
    assert (await answer).values.tolist() == [[9.0]]
    for place, user in ((0, "u1"), (2, "u2")):
        asking.party.calls[place].answer()
        await settle()
        assert asking.party.users[-1] == [user]
    await asking.batcher.close()


async def test_a_call_larger_than_a_batch_goes_by_itself():
    asking = Asking(max_rows=2, max_queued_rows=2)
    big, small = asking.ask("u1", "u2", "u3"), None
    await settle()
    small = asking.ask("u4")
    asking.party.calls[0].answer()
    assert len((await big).statuses) == 3
    await settle()
    asking.party.calls[1].answer()
    assert (await small).values.tolist() == [[4.0]]


async def test_what_does_not_fit_in_the_queue_is_rejected_at_once_with_a_time():
    asking = Asking(max_queued_rows=2)
    asking.ask("u0")
    await settle()
    waiting = [asking.ask("u1"), asking.ask("u2")]
    answer = await asking.ask("u3")
    assert (answer.statuses, answer.reason) == ([REJECTED], FULL)
    assert answer.retry_after_s > 0
    assert asking.batcher.queued_rows == 2
    asking.party.calls[0].answer()
    await settle()
    asking.party.calls[1].answer()
    assert [(await one).statuses for one in waiting] == [[OK], [OK]]
    assert asking.batcher.queued_rows == 0
    assert asking.batcher.figures.refused == 1


async def test_each_leaves_at_its_own_deadline_and_the_call_has_the_latest():
    asking = Asking()
    hasty, patient = asking.ask("u1", left_s=1), asking.ask("u2", left_s=3)
    await settle()
    assert asking.party.calls[0].deadline == asking.clock.now + 3
    asking.clock.tick(1)
    asking.batcher.expire()
    answer = await hasty
    assert (answer.statuses, answer.reason) == ([TIMEOUT], LATE)
    asking.party.calls[0].answer()
    assert (await patient).values.tolist() == [[2.0]]


async def test_who_waits_in_the_queue_leaves_at_the_deadline_and_is_never_sent():
    asking = Asking()
    asking.ask("u1")
    await settle()
    late = asking.ask("u2", left_s=1)
    await settle()
    asking.clock.tick(1)
    asking.batcher.expire()
    assert (await late).statuses == [TIMEOUT]
    asking.party.calls[0].answer()
    await settle()
    assert asking.party.users == [["u1"]]


async def test_a_real_timer_ends_a_late_call():
    batcher = Batcher(Party(), BatchSettings())
    answer = await batcher.infer(MODEL, "ab", ["u1"], ONE, asyncio.get_running_loop().time() + 0.01)
    assert answer.statuses == [TIMEOUT]
    await batcher.close()


async def test_a_cancelled_caller_takes_its_row_back_before_it_is_sent():
    asking = Asking()
    asking.ask("u1")
    await settle()
    gone, stays = asking.ask("u2"), asking.ask("u3")
    await settle()
    gone.cancel()
    await settle()
    asking.party.calls[0].answer()
    await settle()
    assert asking.party.users[1:] == [["u3"]]
    asking.party.calls[1].answer()
    assert (await stays).values.tolist() == [[3.0]]


async def test_a_call_that_nobody_awaits_is_cancelled_and_makes_room():
    asking = Asking()
    one, two = asking.ask("u1"), asking.ask("u2")
    await settle()
    one.cancel()
    await settle()
    assert not asking.party.calls[0].reply.cancelled()
    two.cancel()
    next_ = asking.ask("u3")
    await settle()
    assert asking.party.calls[0].reply.cancelled()
    asking.party.calls[1].answer()
    assert (await next_).values.tolist() == [[3.0]]


async def test_a_spent_deadline_asks_nobody():
    asking = Asking()
    assert (await asking.ask("u1", left_s=0)).statuses == [TIMEOUT]
    assert asking.party.calls == []


async def test_a_fault_of_ours_reaches_all_who_wait():
    asking = Asking()
    asked = [asking.ask("u1"), asking.ask("u2")]
    await settle()
    asking.party.calls[0].reply.set_exception(ZeroDivisionError())
    for one in asked:
        with pytest.raises(ZeroDivisionError):
            await one


async def test_closing_answers_all():
    asking = Asking()
    asked = [asking.ask("u1")]
    await settle()
    asked.append(asking.ask("u2"))
    await settle()
    await asking.batcher.close()
    asked.append(asking.ask("u3"))
    assert asking.party.closed
    assert [(await one).reason for one in asked] == [CLOSED] * 3
    assert asking.party.calls[0].reply.cancelled()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 3), st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([MODEL, OTHER])),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("answer"), st.integers(0, 3)),
        st.tuples(st.just("tick"), st.sampled_from([0.5, 1.0, 3.0])),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


class Story:
    """Any order of events. Every caller gets exactly one outcome, and its own rows."""

    def __init__(self, in_flight, max_rows, max_queued_rows):
        self.asking = Asking(in_flight=in_flight, max_rows=max_rows, max_queued_rows=max_queued_rows)
        self.in_flight = in_flight
        self.asked = {}
        self.cancelled = set()

    def ask(self, rows, left_s, model):
        start = 10 * len(self.asked)
        users = [f"u{start + row}" for row in range(rows)]
        task = self.asking.ask(*users, left_s=left_s, model=model)
        self.asked[task] = [float(start + row) for row in range(rows)]

    def cancel(self, number):
        tasks = list(self.asked)
        if number < len(tasks) and tasks[number].cancel():
            self.cancelled.add(tasks[number])

    def answer(self, number):
        open_ = [call for call in self.asking.party.calls if not call.reply.done()]
        if number < len(open_):
            open_[number].answer()

    def tick(self, seconds):
        self.asking.clock.tick(seconds)
        self.asking.batcher.expire()

    async def turn(self):
        await settle()
        assert sum(not call.reply.done() for call in self.asking.party.calls) <= self.in_flight

    async def play(self, steps):
        for name, *arguments in steps:
            done = getattr(self, name)(*arguments)
            if done is not None:
                await done
        for _ in range(len(self.asked) + 1):
            await settle()
            for call in self.asking.party.calls:
                if not call.reply.done():
                    call.answer()
        for task, numbers in self.asked.items():
            self.check(task, numbers)
        sent = [user for call in self.asking.party.calls for user in call.user_ids]
        assert len(sent) == len(set(sent))
        assert self.asking.batcher.queued_rows == 0
        await self.asking.batcher.close()

    def check(self, task, numbers):
        assert task.done()
        if task.cancelled():
            assert task in self.cancelled
            return
        answer = task.result()
        assert len(answer.statuses) == len(numbers)
        assert set(answer.statuses) in ({OK}, {TIMEOUT}, {REJECTED})
        expected = numbers if answer.statuses[0] is OK else [0.0] * len(numbers)
        assert answer.values[:, 0].tolist() == expected


@settings(max_examples=150)
@given(STEPS, st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
def test_whatever_the_order_every_caller_gets_one_outcome_and_its_own_rows(steps, in_flight, max_rows, max_queued):
    async def play():
        await Story(in_flight, max_rows, max_queued).play(steps)

    asyncio.run(play())
