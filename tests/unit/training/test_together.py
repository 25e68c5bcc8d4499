from __future__ import annotations

import asyncio

import pytest

from training.together import together


async def test_results_come_in_order():
    async def value(number: int) -> int:
        return number

    assert await together(value(1), value(2)) == [1, 2]


async def test_the_first_failure_ends_the_others_and_is_raised_itself():
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        await together(wait(), fail())
    assert ended.is_set()
