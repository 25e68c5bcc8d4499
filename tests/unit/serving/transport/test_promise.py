"""What whoever listens to a promise is told, and when."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.transport import Promise
from serving.transport.promise import settled


class Heard:
    """Remembers what it was told."""

    def __init__(self):
        self.told = []

    def __call__(self, promise):
        self.told.append("cancelled" if promise.cancelled() else promise.exception() or promise.result())


@pytest.fixture
def promise():
    return Promise()


@pytest.fixture
def heard():
    return Heard()


def test_who_listens_is_told_at_once_and_in_order(promise):
    told = []
    for name in "abc":
        promise.add_done_callback(lambda done, name=name: told.append((name, done.result())))
    promise.set_result(7)
    assert told == [("a", 7), ("b", 7), ("c", 7)]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda promise: promise.set_result(1), 1),
        (lambda promise: promise.cancel(), "cancelled"),
    ],
)
def test_who_listens_late_is_told_too(promise, heard, end, expected):
    end(promise)
    promise.add_done_callback(heard)
    assert heard.told == [expected]


def test_only_the_first_end_counts(promise, heard):
    promise.add_done_callback(heard)
    assert promise.cancel()
    assert not promise.cancel()
    promise.set_result(1)
    promise.set_exception(ValueError("late"))
    assert heard.told == ["cancelled"]
    with pytest.raises(asyncio.CancelledError):
        promise.result()


def test_there_is_nothing_to_ask_for_before_the_end(promise):
    assert not promise.done()
    for ask in (promise.result, promise.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()


def test_errors_are_told_as_they_are_translated(promise, heard):
    promise.translate(lambda error: KeyError(str(error)))
    promise.add_done_callback(heard)
    promise.set_exception(ValueError("what"))
    promise.translate(lambda error: TypeError(str(error)))
    promise.add_done_callback(heard)
    assert [type(error) for error in heard.told] == [KeyError, TypeError]
    with pytest.raises(TypeError, match="what"):
        promise.result()


def test_nobody_translates_that_it_was_cancelled(promise):
    promise.cancel()
    promise.translate(lambda error: ValueError("translated"))
    assert promise.cancelled()


def test_a_listener_that_fails_keeps_nothing_from_the_others(promise, heard, caplog):
    promise.add_done_callback(lambda done: 1 / 0)
    promise.add_done_callback(heard)
    promise.set_result(1)
    assert heard.told == [1]
    assert "a listener failed" in caplog.text


async def test_it_can_be_awaited_before_and_after(promise):
    waiting = asyncio.create_task(_awaited(promise))
    await asyncio.sleep(0)
    promise.set_result(5)
    assert await waiting == 5
    assert await promise == 5


async def test_errors_are_raised_where_it_is_awaited(promise):
    waiting = asyncio.create_task(_awaited(promise))
    await asyncio.sleep(0)
    promise.set_exception(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        await waiting


async def test_it_is_cancelled_with_who_awaits_it(promise, heard):
    promise.add_done_callback(heard)
    waiting = asyncio.create_task(_awaited(promise))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert heard.told == ["cancelled"]


async def test_who_awaits_one_that_is_cancelled_is_cancelled(promise):
    waiting = asyncio.create_task(_awaited(promise))
    await asyncio.sleep(0)
    promise.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("error", [None, ValueError("wrong")])
async def test_of_a_future_it_says_the_same(heard, error):
    future = asyncio.get_running_loop().create_future()
    Promise.of(future).add_done_callback(heard)
    future.set_result(3) if error is None else future.set_exception(error)
    await asyncio.sleep(0)
    assert heard.told == [error or 3]


async def test_a_future_is_cancelled_with_its_promise_and_the_other_way(heard):
    one, other = (asyncio.get_running_loop().create_future() for _ in range(2))
    Promise.of(one).cancel()
    assert one.cancelled()
    Promise.of(other).add_done_callback(heard)
    other.cancel()
    await asyncio.sleep(0)
    assert heard.told == ["cancelled"]


async def _awaited(promise):
    return await promise


# --- coroutines that are no tasks ---


async def test_a_coroutine_begins_at_once_and_goes_on_in_the_turn_of_what_it_awaits(promise, heard):
    began = []

    async def steps():
        began.append(True)
        return 1 + await promise

    running = Promise.of(steps())
    running.add_done_callback(heard)
    assert began
    assert not running.done()
    promise.set_result(4)
    assert heard.told == [5]


async def test_a_coroutine_that_awaits_nothing_is_done_at_once():
    async def steps():
        return 3

    running = Promise.of(steps())
    assert running.result() == 3


async def test_a_coroutine_may_await_futures_tasks_and_turns_of_the_loop(heard):
    future = asyncio.get_running_loop().create_future()

    async def steps():
        await asyncio.sleep(0)
        first, second = await future, await asyncio.create_task(asyncio.sleep(0, 5))
        return first + second

    running = Promise.of(steps())
    asyncio.get_running_loop().call_soon(future.set_result, 2)
    assert await running == 7


async def test_a_coroutine_that_a_task_awaits_within_another_is_told_by_the_loop(promise):
    """Of the two ways to wait each takes its own, also where one contains the other."""

    async def waiting():
        return await promise

    async def steps():
        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        promise.set_result(1)
        return await task, await promise

    assert await Promise.of(steps()) == (1, 1)


def test_threads_know_nothing_of_each_others_coroutines():
    """A node in a thread of its own awaits in a task while a coroutine of this one runs."""
    with ThreadPoolExecutor(1) as threads:

        async def waits_for_a_thread():
            return threads.submit(asyncio.run, _awaited_later()).result()

        assert Promise.of(waits_for_a_thread()).result() == 6


async def test_what_a_coroutine_raises_is_told_with_its_own_frames(heard):
    async def steps():
        raise ValueError("wrong")

    running = Promise.of(steps())
    running.add_done_callback(heard)
    [error] = heard.told
    assert str(error) == "wrong"
    assert traceback.extract_tb(error.__traceback__)[-1].name == "steps"


async def test_errors_of_what_a_coroutine_awaits_reach_it(promise):
    async def steps():
        try:
            await promise
        except ValueError:
            return "caught"

    running = Promise.of(steps())
    promise.set_exception(ValueError("wrong"))
    assert running.result() == "caught"


async def test_a_cancelled_coroutine_cleans_up_and_cancels_what_it_awaits(promise, heard):
    ended = []

    async def steps():
        try:
            await promise
        finally:
            ended.append(True)

    running = Promise.of(steps())
    running.add_done_callback(heard)
    assert running.cancel()
    assert heard.told == ["cancelled"]
    assert ended
    assert promise.cancelled()
    assert not running.cancel()


async def test_a_coroutine_that_awaits_a_future_is_cancelled_with_it():
    future = asyncio.get_running_loop().create_future()

    async def steps():
        await future

    running = Promise.of(steps())
    assert running.cancel()
    assert future.cancelled()
    assert await settled([running])
    assert running.cancelled()


async def test_a_coroutine_may_refuse_to_be_cancelled(promise):
    async def steps():
        try:
            await promise
        except asyncio.CancelledError:
            return "stays"

    running = Promise.of(steps())
    running.cancel()
    assert running.result() == "stays"


async def test_a_coroutine_that_is_cancelled_while_it_runs_ends_where_it_next_waits(promise):
    passed = []

    async def steps():
        running.cancel()
        passed.append(1)
        await asyncio.sleep(0)
        passed.append(2)

    async def begin():
        await promise
        await steps()

    running = Promise.of(begin())
    promise.set_result(None)
    assert await settled([running])
    assert running.cancelled()
    assert passed == [1]


async def test_a_coroutine_that_is_cancelled_while_it_runs_cancels_what_it_awaits_next(promise):
    begin = Promise()

    async def steps():
        await begin
        running.cancel()
        await promise

    running = Promise.of(steps())
    begin.set_result(None)
    assert promise.cancelled()
    assert running.cancelled()


async def test_a_coroutine_keeps_the_context_in_which_it_began(promise):
    here = contextvars.ContextVar("here")
    here.set("outside")

    async def steps():
        before = here.get()
        here.set("inside")
        await promise
        return before, here.get()

    running = Promise.of(steps())
    assert here.get() == "outside"
    promise.set_result(None)
    assert running.result() == ("outside", "inside")


async def test_a_promise_of_a_promise_is_itself(promise):
    assert Promise.of(promise) is promise


class Awaited:
    """Of its own kind."""

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return 8


async def test_anything_that_can_be_awaited_has_a_promise():
    assert await Promise.of(Awaited()) == 8


@pytest.mark.parametrize("fails", [True, False])
async def test_what_failed_or_was_cancelled_leaves_nothing_to_the_collector(fails):
    async def steps(awaited):
        await awaited
        raise ValueError("wrong")

    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            awaited = Promise()
            running = Promise.of(steps(awaited))
            awaited.set_result(None) if fails else running.cancel()
            assert running.done()
        del awaited, running
        assert gc.collect() < 20
    finally:
        gc.enable()


# --- several ---


async def test_several_are_settled_when_all_are_done_however():
    one, other, third = Promise(), Promise(), Promise()
    waiting = asyncio.create_task(settled([one, other, third]))
    await asyncio.sleep(0)
    one.set_result(1)
    other.set_exception(ValueError("wrong"))
    await asyncio.sleep(0)
    assert not waiting.done()
    third.cancel()
    assert await waiting


async def test_none_are_settled_at_once():
    assert await settled([])


async def test_who_waits_for_several_waits_no_longer_than_told(promise):
    assert not await settled([promise], timeout_s=0.001)
    assert not promise.done()


async def test_who_waits_for_several_and_leaves_leaves_them_alone(promise):
    waiting = asyncio.create_task(settled([promise]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not promise.done()


async def _awaited_later():
    """In a task."""
    promise = Promise()
    asyncio.get_running_loop().call_soon(promise.set_result, 6)
    return await promise
