"""Runs a plan in processes of its own, so that neither the caller's loop nor its memory is part of the figures."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.load.lines import Assignment, Finished, Line, Progress, Refused
from bench.load.plan import Plan
from bench.load.recorder import merged
from bench.load.results import LoadResult

ROOT = Path(__file__).resolve().parents[2]
_LEAD_S = 0.1
_READY_S = 30.0
_LONGEST_LINE = 64 << 20

OnProgress = Callable[[int, int], None]
"""Right answers and failures since the start of the measured part, over all processes."""


class LoadError(RuntimeError):
    """A generator process refused its plan or died. The message holds what it said."""


async def load(
    plan: Plan, processes: int = 1, cpus: Sequence[int] = (), on_progress: OnProgress | None = None
) -> LoadResult:
    """The result of all processes together. They share the plan's rate and connections and keep to `cpus`.

    Raises LoadError. A cancelled run leaves no process behind.
    """
    children = [await _spawn() for _ in range(processes)]
    try:
        for index, child in enumerate(children):
            _tell(child, msgspec.json.encode(Assignment(plan, index, processes, os.getpid(), tuple(cpus))))
        async with asyncio.timeout(_READY_S):
            for child in children:
                await _ready(child)
        start = time.monotonic() + _LEAD_S
        for child in children:
            _tell(child, repr(start).encode())
        counts = [Progress(0, 0)] * processes
        follow = [_follow(child, counts, index, on_progress) for index, child in enumerate(children)]
        return merged(await asyncio.gather(*follow))
    except TimeoutError:
        raise LoadError(f"a generator process was not ready after {_READY_S:.0f} s") from None
    finally:
        for child in children:
            if child.returncode is None:
                child.kill()
            await child.wait()


def load_now(
    plan: Plan, processes: int = 1, cpus: Sequence[int] = (), on_progress: OnProgress | None = None
) -> LoadResult:
    """`load` for callers without a loop."""
    return asyncio.run(load(plan, processes, cpus, on_progress))


async def _spawn() -> Process:
    paths = [str(ROOT), str(ROOT / "proto"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = (sys.executable, "-m", "bench.load.worker")
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment, limit=_LONGEST_LINE)


def _tell(child: Process, line: bytes) -> None:
    if child.stdin is not None:
        child.stdin.write(line + b"\n")


async def _line(child: Process) -> bytes:
    line = b"" if child.stdout is None else await child.stdout.readline()
    if not line:
        raise LoadError(f"a generator process ended with status {await child.wait()}; its reason is above")
    return line


async def _ready(child: Process) -> None:
    line = await _line(child)
    if line != b"ready\n":
        raise LoadError(_refusal(msgspec.json.decode(line, type=Line)))


async def _follow(child: Process, counts: list[Progress], index: int, on_progress: OnProgress | None) -> LoadResult:
    while True:
        line = msgspec.json.decode(await _line(child), type=Line)
        if isinstance(line, Finished):
            return line.result
        if not isinstance(line, Progress):
            raise LoadError(_refusal(line))
        counts[index] = line
        if on_progress is not None:
            on_progress(sum(part.ok for part in counts), sum(part.failed for part in counts))


def _refusal(line: Progress | Finished | Refused) -> str:
    return line.reason if isinstance(line, Refused) else f"a generator process spoke out of turn: {line}"
