"""One process of the generator: a plan comes in on standard input, a result goes out, both as lines of JSON.

It says `ready`, is told a start time of the monotonic clock (which all processes of a machine share), and reports what
it did so far twice a second.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
from collections.abc import Iterator

import msgspec
import uvloop

from bench.load.arrivals import share
from bench.load.calls import Caller, Pool
from bench.load.generator import closed_loop, open_loop
from bench.load.lines import Assignment, Finished, Line, Progress, Refused
from bench.load.pace import best_clock
from bench.load.plan import PlanError
from bench.load.recorder import Recorder, Window
from bench.load.results import LoadResult
from serving.worker import die_with

_REPORT_S = 0.5
_GARBAGE = 50_000


def say(line: Line | str) -> None:
    text = line if isinstance(line, str) else msgspec.json.encode(line).decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def run(assignment: Assignment, caller: Caller, window: Window) -> LoadResult:
    """Do it, within these times of the monotonic clock."""
    plan, recorder, clock = assignment.plan, Recorder(window), best_clock()
    pool = Pool(plan, assignment.connections)
    send = caller.over(pool, assignment.index, assignment.of)
    reports = asyncio.create_task(_report(recorder))
    try:
        await clock.sleep_until(window.start)
        cpu_s = time.process_time()
        if plan.rate_per_s is None:
            callers = assignment.connections * plan.streams
            await closed_loop(send, callers, window.end, clock, recorder, plan.drain_s)
        else:
            due = _due(assignment, plan.rate_per_s, window)
            await open_loop(send, due, clock, recorder, plan.max_in_flight, plan.drain_s)
        cpu_s = time.process_time() - cpu_s
    finally:
        reports.cancel()
        await pool.close()
        clock.close()
    return recorder.result(None if plan.rate_per_s is None else plan.rate_per_s / assignment.of, cpu_s)


def _due(assignment: Assignment, rate_per_s: float, window: Window) -> Iterator[float]:
    plan = assignment.plan
    offsets = share(plan.arrivals, rate_per_s, assignment.index, assignment.of, plan.seed)
    return itertools.takewhile(lambda due: due < window.end, (window.start + offset for offset in offsets))


async def _report(recorder: Recorder) -> None:
    while True:
        await asyncio.sleep(_REPORT_S)
        say(Progress(recorder.answered, len(recorder.failed)))


def main() -> None:
    assignment = msgspec.json.decode(sys.stdin.readline(), type=Assignment)
    die_with(assignment.parent)
    if assignment.cpus:
        os.sched_setaffinity(0, assignment.cpus)
    plan = assignment.plan
    try:
        caller = Caller(plan)
    except PlanError as error:
        say(Refused(str(error)))
        return
    say("ready")
    start = float(sys.stdin.readline())
    measured = start + plan.warmup_s
    gc.freeze()
    gc.set_threshold(_GARBAGE)  # a collection in the midst of a run would look like a slow server
    say(Finished(uvloop.run(run(assignment, caller, Window(start, measured, measured + plan.duration_s)))))


if __name__ == "__main__":
    main()
