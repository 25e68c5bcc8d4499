"""What whoever listens to a promise is told, and when."""

from __future__ import annotations

import asyncio

import pytest

from serving.transport import Promise


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
