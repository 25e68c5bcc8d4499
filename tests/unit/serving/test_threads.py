import asyncio
import threading

import numpy as np
import pytest

from loaders.loader import Servable
from loaders.signature import Batch
from serving.errors import LimitError
from serving.threads import ModelThreads

BATCH = Batch(np.zeros((1, 1)), np.empty((1, 0), dtype=np.object_))


class Held(Servable):
    """Ends when it is let go."""

    def __init__(self):
        self.go_on = threading.Event()
        self.threads = []

    def predict(self, batch):
        self.threads.append(threading.current_thread())
        self.go_on.wait(30)
        return {"score": batch.numbers}


@pytest.fixture
async def threads():
    made = ModelThreads(1, 2)
    yield made
    await made.stop()


async def test_it_runs_beside_the_loop(threads):
    held = Held()
    running = threads.run(held, BATCH)
    await asyncio.sleep(0)
    assert not running.done()
    held.go_on.set()
    assert (await running)["score"] is BATCH.numbers
    assert held.threads != [threading.current_thread()]


async def test_too_many_are_refused_with_the_time_to_wait(threads):
    held = Held()
    running = [threads.run(held, BATCH) for _ in range(2)]
    with pytest.raises(LimitError) as refused:
        threads.run(held, BATCH)
    assert refused.value.retry_after_s > 0
    held.go_on.set()
    await asyncio.gather(*running)
    await asyncio.sleep(0)
    assert threads.waiting == 0
    await threads.run(held, BATCH)


async def test_what_nobody_waits_for_any_more_does_not_run(threads):
    held = Held()
    first, second = threads.run(held, BATCH), threads.run(held, BATCH)
    second.cancel()
    await asyncio.sleep(0)
    held.go_on.set()
    await first
    await threads.stop()
    assert len(held.threads) == 1
