"""A thread that sends spans, and what it does when nobody takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from serving.settings import TraceSettings
from serving.telemetry.sending import BATCH, LINGER_S, PAUSE_S, MemoryExport, SpanSending
from serving.telemetry.spans import Kind
from serving.telemetry.tracer import Sampling, Tracer

SETTINGS = TraceSettings(max_spans=2 * BATCH)


class Pauses:
    """Tells what the thread waits for, and lets it go on when the test says so, or when it is to stop."""

    def __init__(self) -> None:
        self.begun: queue.Queue[float] = queue.Queue()
        self.over: queue.Queue[None] = queue.Queue()

    def __call__(self, stopping: threading.Event, seconds: float) -> None:
        self.begun.put(seconds)
        if not stopping.is_set():
            self.over.get(timeout=10)


class World:
    def __init__(self) -> None:
        self.tracer = Tracer(SETTINGS, Sampling(SETTINGS))
        self.export, self.pauses = MemoryExport(), Pauses()
        self.sending = SpanSending(self.tracer, self.export, self.pauses)

    def ended(self, *names: str) -> None:
        for name in names:
            self.tracer.begin(name, Kind.SERVER, None).end()

    def waits(self) -> float:
        return self.pauses.begun.get(timeout=10)

    def go_on(self) -> None:
        self.pauses.over.put(None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.sending.start()
        try:
            yield
        finally:
            self.go_on()
            await self.sending.stop()


@pytest.fixture
def world() -> World:
    return World()


async def test_what_comes_within_a_moment_goes_together(world: World) -> None:
    async with world.running():
        world.ended("1")
        assert world.waits() == LINGER_S
        world.ended("2")
    assert [span.name for span in world.export.spans] == ["1", "2"]
    assert world.sending.counts() == (2, 0)


async def test_after_a_refusal_it_waits_and_the_rest_is_sent_later(world: World) -> None:
    world.export.takes = False
    async with world.running():
        world.ended(*map(str, range(BATCH + 1)))
        assert world.waits() == LINGER_S
        world.go_on()
        assert world.waits() == PAUSE_S
        world.export.takes = True
        world.go_on()
        assert world.waits() == LINGER_S
    assert [span.name for span in world.export.spans] == [str(BATCH)]
    assert world.sending.counts() == (1, BATCH)


async def test_what_waits_is_sent_before_it_stops(world: World) -> None:
    async with world.running():
        world.ended("1")
        world.waits()
    assert [span.name for span in world.export.spans] == ["1"]
    assert not world.export.takes  # it was closed
