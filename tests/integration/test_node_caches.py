"""The caches of whole nodes, from their sockets: levels that are switched off, and what a repeated case costs."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from bench.harness.population import SERVICE, expected_scores, guest_columns, guest_numbers, user
from serving.activity import DAY_S
from serving.transport import Transport, channel
from tessera.v1 import admin_pb2, admin_pb2_grpc, inference_pb2_grpc
from tessera.v1 import inference_pb2 as wire
from tests.assembled import Live, Parties, parties

T = TypeVar("T")

FEATURES = dict(zip(guest_columns(), guest_numbers(), strict=True))
COLUMNS = {name: wire.NumberColumn(values=[value] * 2) for name, value in FEATURES.items()}
NONE, L1, L2 = wire.CACHE_LEVEL_NONE, wire.CACHE_LEVEL_L1, wire.CACHE_LEVEL_L2
RESULTS, REMOTE, STRANGERS = "result_ttl_s = 0\n", "remote_ttl_s = 0\n", "not_found_ttl_s = 0\n"
HITS = 50
UPKEEP = {"serving/replicas.py"}
"""Makes tasks by the clock, whatever is asked."""


def case(number: int) -> wire.PredictRequest:
    return wire.PredictRequest(service=SERVICE, user_id=user(number), case_id=f"c{number}", numbers=FEATURES)


async def metrics(running: Parties) -> str:
    async with httpx.AsyncClient(base_url=f"http://{running.guest.address('http')}") as client:
        return (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("off", "repeated", "known", "stranger"),
    [
        ("", L1, L2, L2),
        (REMOTE, L1, NONE, NONE),
        (RESULTS + STRANGERS, NONE, L2, NONE),
    ],
)
async def test_a_level_of_no_time_is_off(tmp_path: Path, off: str, repeated: int, known: int, stranger: int) -> None:
    batch = wire.BatchPredictRequest(service=SERVICE, user_ids=[user(2), "nobody"], numbers=COLUMNS)
    async with parties(tmp_path, hosts=1, guest=f"[cache]\n{off}") as running, running.calling() as stub:
        assert [(await stub.Predict(case(1))).cache for _ in range(2)] == [NONE, repeated]
        levels = [(await stub.BatchPredict(batch)).parties[0].levels for _ in range(2)]
        shown = await metrics(running)
    assert levels == [bytes([NONE, NONE]), bytes([known, stranger])]
    for level, is_on in (("l1", RESULTS not in off), ("l2", REMOTE not in off)):
        for kind in ("hits", "misses", "fills"):
            assert (f'tessera_cache_{kind}_total{{level="{level}"}} 0.0' in shown) is not is_on


class Caller:
    """A client in a thread and an event loop of its own, so that the test's loop is the nodes' alone."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def open(self) -> None:
        async def opened() -> None:
            self._link = channel(Transport.NATIVE, self._address)
            self._stub = inference_pb2_grpc.InferenceStub(self._link.stub_channel)

        await self._there(opened())

    async def replies(self, *requests: wire.PredictRequest) -> list[wire.PredictReply]:
        """One after the other, over one connection."""

        async def asked() -> list[wire.PredictReply]:
            return [await self._stub.Predict(request, timeout=10) for request in requests]

        return await self._there(asked())

    async def close(self) -> None:
        await self._there(self._link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    async def _there(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))


@asynccontextmanager
async def calling(guest: Live) -> AsyncIterator[Caller]:
    caller = Caller(guest.address("service"))
    await caller.open()
    try:
        yield caller
    finally:
        await caller.close()


@contextmanager
def makers_of_tasks() -> Iterator[list[str]]:
    """Which file of ours, or "", made each task of this loop inside the block."""
    loop, made = asyncio.get_running_loop(), []

    def noted(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], **options: Any) -> asyncio.Task[T]:
        frame, maker = sys._getframe(), ""
        while frame is not None and not maker:
            _, found, file = frame.f_code.co_filename.rpartition("/serving/")
            maker, frame = f"serving/{file}" if found else "", frame.f_back
        made.append(maker)
        return asyncio.Task(coroutine, loop=loop, **options)

    before = loop.get_task_factory()
    loop.set_task_factory(noted)
    try:
        yield made
    finally:
        loop.set_task_factory(before)


@pytest.mark.usefixtures("loops_in_threads")
async def test_neither_a_repeated_case_nor_a_new_one_makes_a_task(tmp_path: Path) -> None:
    scores = expected_scores(1)
    async with parties(tmp_path, hosts=1) as running, calling(running.guest) as caller:
        [first] = await caller.replies(case(1))
        with makers_of_tasks() as made:
            hits = await caller.replies(*[case(1)] * HITS)
        assert [maker for maker in made if maker not in UPKEEP] == []
        assert {(reply.cache, reply.score[0]) for reply in hits} == {(L1, first.score[0])}
        with makers_of_tasks() as made:
            [other] = await caller.replies(case(2))
        assert [maker for maker in made if maker not in UPKEEP] == []
        assert (other.cache, other.score[0]) == (NONE, pytest.approx(scores[2]))
        assert f'tessera_cache_hits_total{{level="l1"}} {HITS:.1f}' in await metrics(running)
        with makers_of_tasks() as made:
            assert await activity(running.guest.address("admin")) == {user(1): 1 + HITS, user(2): 1}
        assert [maker for maker in made if maker not in UPKEEP]  # they would have been noticed


async def activity(address: str) -> dict[str, int]:
    """As the guest has counted."""
    link = channel(Transport.NATIVE, address)
    try:
        today = int(time.time()) // DAY_S
        request = admin_pb2.ActivityRequest(service=SERVICE, first_day=today - 1, last_day=today, limit=10)
        reply = await admin_pb2_grpc.AdminStub(link.stub_channel).Activity(request, timeout=10)
    finally:
        await link.close()
    return dict(zip(reply.user_ids, reply.counts, strict=True))
