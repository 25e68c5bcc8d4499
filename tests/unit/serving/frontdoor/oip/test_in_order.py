"""Answers in the order of requests, however long each takes; what ends a stream ends all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.frontdoor.oip.in_order import in_order


class Answering:
    """Answers request i when gate i is open. `started` and `ended` in their order; `most` at any time."""

    def __init__(self, count: int, then: Exception | None = None) -> None:
        self.gates = [asyncio.Event() for _ in range(count)]
        self.started: list[int] = []
        self.ended: list[int] = []
        self.most = 0
        self._then = then
        self._running = 0

    async def requests(self) -> AsyncIterator[int]:
        for number in range(len(self.gates)):
            yield number
        if self._then is not None:
            raise self._then

    async def answer(self, number: int) -> int:
        self.started.append(number)
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await self.gates[number].wait()
            return number
        finally:
            self._running -= 1
            self.ended.append(number)


@given(st.integers(1, 12).flatmap(lambda count: st.permutations(range(count))), st.integers(1, 5), st.data())
def test_whatever_ends_first(ends: list[int], most: int, data: st.DataObject) -> None:
    """Gates open in any order, with any number of turns of the loop between them."""

    async def run() -> None:
        answering = Answering(len(ends))
        pauses = [data.draw(st.integers(0, 4)) for _ in ends]

        async def open_gates() -> None:
            for number, turns in zip(ends, pauses, strict=True):
                for _ in range(turns):
                    await asyncio.sleep(0)
                answering.gates[number].set()

        opening = asyncio.create_task(open_gates())
        assert [one async for one in in_order(answering.requests(), answering.answer, most)] == sorted(ends)
        assert answering.started == sorted(ends)
        assert answering.most <= most
        await opening

    asyncio.run(run())


async def test_those_that_nobody_has_taken_count_too() -> None:
    answering = Answering(4)
    for gate in answering.gates:
        gate.set()
    async with aclosing(in_order(answering.requests(), answering.answer, 2)) as told:
        assert await anext(told) == 0
        for _ in range(20):
            await asyncio.sleep(0)
        assert answering.started == [0, 1]
        assert [one async for one in told] == [1, 2, 3]


async def test_what_reading_raises_comes_after_the_answers() -> None:
    answering = Answering(2, ValueError("unreadable"))
    told = in_order(answering.requests(), answering.answer, 5)
    first = asyncio.ensure_future(anext(told))
    while answering.started != [0, 1]:
        await asyncio.sleep(0)
    for gate in reversed(answering.gates):
        gate.set()
    assert [await first, await anext(told)] == [0, 1]
    with pytest.raises(ValueError, match="unreadable"):
        await anext(told)


async def test_what_an_answer_raises_ends_all() -> None:
    answering = Answering(3)
    answering.gates[0].set()

    async def answer(number: int) -> int:
        if number == 1:
            raise ValueError("our fault")
        return await answering.answer(number)

    told = in_order(answering.requests(), answer, 5)
    assert await anext(told) == 0
    with pytest.raises(ValueError, match="our fault"):
        await anext(told)
    assert answering.ended == [0, 2]


async def test_closing_it_ends_all_that_go_on() -> None:
    answering = Answering(3)
    answering.gates[0].set()
    async with aclosing(in_order(answering.requests(), answering.answer, 3)) as told:
        assert await anext(told) == 0
        while answering.started != [0, 1, 2]:
            await asyncio.sleep(0)
        assert answering.ended == [0]
    assert sorted(answering.ended) == [0, 1, 2]


async def test_so_does_the_end_of_who_waits_for_it() -> None:
    answering = Answering(2)

    async def wait() -> list[int]:
        return [one async for one in in_order(answering.requests(), answering.answer, 2)]

    waiting = asyncio.create_task(wait())
    while answering.started != [0, 1]:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert sorted(answering.ended) == [0, 1]
