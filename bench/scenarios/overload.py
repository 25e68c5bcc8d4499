"""Twice as many calls as can be answered: how many are answered still, and how soon are the others refused?

What can be answered is the most that closed loops of growing size got in the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from bench.harness import local
from bench.harness.figures import Row
from bench.harness.new_users import new_users
from bench.harness.stage import Case, Stage, again, closed, opened
from bench.load import LoadResult, Plan

_DEADLINE_S = 1.0
_TIMES = 2.0
_SLOW_S = 0.005
_STREAMS, _STREAMS_SLOW = (16, 32, 112), (1, 4, 16)
"""Callers on each of 4 connections. All together are fewer than `limits.concurrent_calls`."""


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties() as parties:
        plans = new_users(stage, parties, anywhere=True)
        yield from _overload(Case(stage, "overload", "two-party miss", parties), plans, _STREAMS)
    with stage.parties(hosts=0) as parties:
        service = local.slow(parties, _SLOW_S)
        plans = again(service.plan(stage, parties))
        yield from _overload(Case(stage, "overload", "local model of 5 ms", parties), plans, _STREAMS_SLOW)


def _overload(case: Case, plan_from: Callable[[int], Plan], streams: Sequence[int]) -> Iterator[Row]:
    made, rows = 0, []
    for callers in streams:
        plan = closed(plan_from(made), 4, callers)
        result, usage = case.run(plan)
        rows.append(case.row(plan, result, usage))
        made += _made(result)
    peak = max(rows, key=lambda row: row.per_s)
    yield peak
    if not peak.per_s:
        return
    plan = opened(msgspec.structs.replace(plan_from(made), deadline_s=_DEADLINE_S), _TIMES * peak.per_s)
    result, usage = case.run(plan)
    refused = result.failed_latency_ms
    notes = {"goodput_share": round(result.ok_per_s / peak.per_s, 3)}
    if refused is not None:
        notes |= {"refused_p50_ms": refused.p50, "refused_p99_ms": refused.p99}
    yield case.row(plan, result, usage, notes=notes)


def _made(result: LoadResult) -> int:
    return sum(part.ok + part.failed for part in result.slices)
