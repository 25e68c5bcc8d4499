"""Steps for several hosts at the same time."""

from __future__ import annotations

import pytest

from serving.peers.hosts import all_of
from serving.transport import Promise


async def _until(promise: Promise[None]) -> None:
    await promise


@pytest.mark.parametrize("count", [0, 1, 3])
def test_all_begin_at_once_and_it_ends_with_the_last(count: int) -> None:
    answers = [Promise[None]() for _ in range(count)]
    running = Promise.of(all_of([_until(answer) for answer in answers]))
    for answer in reversed(answers):
        assert not running.done()
        answer.set_result(None)
    assert running.result() is None


@pytest.mark.parametrize("count", [1, 3])
def test_all_are_cancelled_with_it(count: int) -> None:
    answers = [Promise[None]() for _ in range(count)]
    running = Promise.of(all_of([_until(answer) for answer in answers]))
    assert running.cancel()
    assert running.cancelled()
    assert all(answer.cancelled() for answer in answers)
