from __future__ import annotations

import asyncio

import pytest

from serving.uninterrupted import to_the_end


async def test_the_caller_gets_what_the_work_returns_or_raises() -> None:
    async def work(fails: bool) -> int:
        if fails:
            raise ValueError("no")
        return 1

    assert await to_the_end(work(fails=False)) == 1
    with pytest.raises(ValueError, match="no"):
        await to_the_end(work(fails=True))


@pytest.mark.parametrize("fails", [False, True])
async def test_a_caller_that_is_cancelled_is_so_when_the_work_is_over(fails: bool) -> None:
    entered, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        entered.set()
        await go.wait()
        done.set()
        if fails:
            raise ValueError("no")

    calling = asyncio.ensure_future(to_the_end(work()))
    await entered.wait()
    for _ in range(3):
        calling.cancel()
        await asyncio.wait({calling}, timeout=0)
    assert not calling.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert done.is_set()


async def test_a_deadline_that_passes_meanwhile_is_told_afterwards() -> None:
    async def work() -> None:
        await asyncio.wait({asyncio.current_task()}, timeout=0.02)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await to_the_end(work())
