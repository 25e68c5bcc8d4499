"""Twice as many calls as can be answered: how many are answered still, and how soon are the others refused?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from bench.harness import local
from bench.harness.figures import Row
from bench.harness.new_users import new_users
from bench.harness.stage import Case, Stage, again, closed, opened
from bench.load import Plan

_DEADLINE_S = 1.0
_TIMES = 2.0
_SLOW_S = 0.005


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties() as parties:
        plans = new_users(stage, parties, anywhere=True)
        yield from _overload(Case(stage, "overload", "two-party miss", parties), plans, 32)
    with stage.parties(hosts=0) as parties:
        service = local.slow(parties, _SLOW_S)
        plans = again(service.plan(stage, parties))
        yield from _overload(Case(stage, "overload", "local model of 5 ms", parties), plans, 4)


def _overload(case: Case, plan_from: Callable[[int], Plan], streams: int) -> Iterator[Row]:
    peak_plan = closed(plan_from(0), 4, streams)
    peak, usage = case.run(peak_plan)
    yield case.row(peak_plan, peak, usage)
    if not peak.ok_per_s:
        return
    asked = sum(part.ok + part.failed for part in peak.slices)
    plan = opened(msgspec.structs.replace(plan_from(asked), deadline_s=_DEADLINE_S), _TIMES * peak.ok_per_s)
    result, usage = case.run(plan)
    refused = result.failed_latency_ms
    notes = {"goodput_share": round(result.ok_per_s / peak.ok_per_s, 3)}
    if refused is not None:
        notes |= {"refused_p50_ms": refused.p50, "refused_p99_ms": refused.p99}
    yield case.row(plan, result, usage, notes=notes)
