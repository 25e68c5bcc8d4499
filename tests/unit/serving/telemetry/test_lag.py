import asyncio
import time

from serving.telemetry.lag import EVERY_S, LoopLag


async def test_a_call_that_holds_the_loop_shows():
    lag = LoopLag()
    await lag.start()
    time.sleep(EVERY_S + 0.15)
    async with asyncio.timeout(5):
        while not dict(lag.seconds.cumulative())["+Inf"]:
            await asyncio.sleep(0)
    await lag.stop()
    assert lag.seconds.sum >= 0.15


async def test_nothing_is_due_after_the_stop():
    lag = LoopLag()
    await lag.start()
    await lag.stop()
    assert lag._due is not None
    assert lag._due.cancelled()
