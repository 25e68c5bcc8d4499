from __future__ import annotations

import asyncio
import itertools

import pytest

from bench.load.generator import closed_loop, open_loop
from bench.load.recorder import Recorder, Window
from bench.load.results import OK, UNANSWERED, LoadResult
from tests.unit.bench.load.virtual_time import VirtualClock

START = 100.0


class Run:
    """A loop over 10 s at 10 calls a second, against a server that answers after `pauses` seconds, one per call."""

    def __init__(self, *, limit: int = 1_000, drain_s: float = 5.0, measured: float = START) -> None:
        self.clock = VirtualClock()
        self.recorder = Recorder(Window(START, measured, START + 10))
        self.limit, self.drain_s = limit, drain_s
        self.sent: list[float] = []

    async def open(self, send: object) -> LoadResult:
        due = [START + number / 10 for number in range(100)]
        await self.clock.run(open_loop(send, due, self.clock, self.recorder, self.limit, self.drain_s))
        return self.recorder.result(10.0)

    async def closed(self, send: object, callers: int) -> LoadResult:
        await self.clock.run(closed_loop(send, callers, START + 10, self.clock, self.recorder, self.drain_s))
        return self.recorder.result(None)

    async def answer_after(self, seconds: float) -> str:
        self.sent.append(self.clock.now())
        await self.clock.sleep(seconds)
        return OK


async def test_an_open_loop_keeps_its_times_whatever_the_server_does() -> None:
    run = Run()
    result = await run.open(lambda number: run.answer_after(3.0))
    assert run.sent == pytest.approx([START + number / 10 for number in range(100)])
    assert result.latency_ms.p50 == pytest.approx(3_000, rel=1e-3)
    assert result.most_in_flight == 30
    assert result.lateness_ms.max < 0.01


async def test_every_call_due_during_a_stall_of_the_server_shows_it() -> None:
    run = Run()

    async def send(number: int) -> str:
        """Between 2 s and 3 s nothing is answered."""
        now = run.clock.now()
        return await run.answer_after(START + 3 - now if START + 2 <= now < START + 3 else 0.001)

    result = await run.open(send)
    assert result.latency_ms.p50 == pytest.approx(1, rel=1e-3)
    assert result.latency_ms.max == pytest.approx(1_000, rel=1e-3)
    assert result.latency_ms.p99 == pytest.approx(900, rel=1e-2)  # the second slowest of 100
    slow = [part.ok for part in result.slices[20:30]]
    assert (sum(slow), result.slices[30].ok) == (0, 11)


async def test_a_closed_loop_hides_the_same_stall() -> None:
    run = Run()

    async def send(number: int) -> str:
        now = run.clock.now()
        return await run.answer_after(START + 3 - now if START + 2 <= now < START + 3 else 0.1)

    result = await run.closed(send, callers=1)
    assert result.latency_ms.p90 == pytest.approx(100, rel=1e-3)
    assert result.latency_ms.max > 900
    assert result.lateness_ms is None
    assert result.calls < 95


async def test_latency_counts_from_the_intended_time_when_the_generator_is_late() -> None:
    run = Run()

    async def send(number: int) -> str:
        if number == 50:
            run.clock.tick(2.0)
        return OK

    result = await run.open(send)
    assert result.lateness_ms.max == pytest.approx(1_900, rel=1e-3)
    assert result.latency_ms.max == pytest.approx(2_000, rel=1e-3)
    assert result.latency_ms.p90 > 900  # 20 calls were due meanwhile


async def test_latency_counts_from_the_intended_time_under_overload() -> None:
    """A server for 5 calls a second asked for 10: the queue grows for all of the run, and so do latencies."""
    run = Run(limit=1)
    result = await run.open(lambda number: run.answer_after(0.2))
    assert result.calls == 100
    assert result.latency_ms.max == pytest.approx(100 * 0.2 * 1e3 - 9_900, rel=1e-2)
    assert result.latency_ms.p50 == pytest.approx(result.latency_ms.max / 2, rel=0.05)
    assert result.ok_per_s == pytest.approx(5, rel=0.05)
    assert result.most_in_flight == 1


async def test_what_is_never_answered_is_counted_with_the_time_it_was_waited_for() -> None:
    run = Run(drain_s=2.0)

    async def send(number: int) -> str:
        return await run.answer_after(1_000.0 if number == 0 else 0.01)

    result = await run.open(send)
    assert result.outcomes == {OK: 99, UNANSWERED: 1}
    assert result.failed == 1
    assert result.failed_latency_ms.max == pytest.approx(11_900, rel=1e-3)  # the last call left at 9.9 s


async def test_a_server_that_answers_nothing_more_does_not_hold_a_closed_loop() -> None:
    run = Run(drain_s=2.0)

    async def send(number: int) -> str:
        return await run.answer_after(1_000.0 if number == 4 else 1.0)

    result = await run.closed(send, callers=2)
    assert result.outcomes == {OK: 12, UNANSWERED: 1}
    assert result.failed_latency_ms.max == pytest.approx(10_000, rel=1e-3)
    assert run.clock.now() == START + 12


async def test_a_server_that_answers_nothing_for_a_while_does_not_hold_an_open_loop_without_room() -> None:
    """What is out is given up, and the rest of the plan goes on."""
    run = Run(limit=5, drain_s=2.0)
    result = await run.open(lambda number: run.answer_after(1_000.0 if 20 <= number < 25 else 0.01))
    assert result.outcomes == {OK: 95, UNANSWERED: 5}
    assert result.calls == 100
    assert result.latency_ms.max == pytest.approx(2_000, rel=0.1)  # of those that waited for room


async def test_warm_up_is_not_counted() -> None:
    run = Run(measured=START + 4)
    result = await run.open(lambda number: run.answer_after(2.0 if number < 40 else 0.05))
    assert result.calls == 60
    assert result.latency_ms.max == pytest.approx(50, rel=1e-3)
    assert result.duration_s == 6
    assert sum(part.ok for part in result.slices) == 100


async def test_failures_are_counted_by_their_code_and_do_not_improve_latency() -> None:
    run = Run()
    outcomes = itertools.cycle(["UNAVAILABLE", OK, "WRONG_REPLY", OK])

    async def send(number: int) -> str:
        await run.clock.sleep(0.2)
        outcome = next(outcomes)
        await run.clock.sleep(0.3 if outcome == OK else 0)
        return outcome

    result = await run.open(send)
    assert result.outcomes == {OK: 50, "UNAVAILABLE": 25, "WRONG_REPLY": 25}
    assert (result.wrong, result.failed) == (25, 50)
    assert result.latency_ms.p50 == pytest.approx(500, rel=1e-3)
    assert result.failed_latency_ms.p50 == pytest.approx(200, rel=1e-3)


async def test_callers_of_a_closed_loop_never_wait_for_each_other() -> None:
    run = Run()
    result = await run.closed(lambda number: run.answer_after(0.5), callers=8)
    assert result.most_in_flight == 8
    assert result.ok_per_s == pytest.approx(16, rel=0.1)
    assert result.asked_per_s is None


async def test_a_cancelled_run_leaves_no_task_behind() -> None:
    run = Run()
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(run.open(lambda number: run.answer_after(1_000.0)))
    while len(run.sent) < 20:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
