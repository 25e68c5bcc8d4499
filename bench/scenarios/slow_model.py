"""A model of 50 ms beside a quick one: what do callers of the quick one notice, and does the event loop keep time?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from bench.harness import local
from bench.harness.faults import together
from bench.harness.figures import Row
from bench.harness.meter import Meter
from bench.harness.profile import loop_lag
from bench.harness.stage import Case, Stage, closed, opened

SLOW_S = 0.05
_RATE_PER_S = 300.0


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties(hosts=0) as parties:
        quick, slow = local.quick(parties), local.slow(parties, SLOW_S)
        plan = opened(quick.plan(stage, parties), _RATE_PER_S)
        alone = Case(stage, "slow model", "the quick one alone", parties)
        result, usage = alone.run(plan)
        yield alone.row(plan, result, usage, notes=loop_lag(usage))
        beside = Case(stage, "slow model", "the quick one beside it", parties)
        meter = Meter(parties)
        of_quick, of_slow = asyncio.run(together((plan, closed(slow.plan(stage, parties), 1, 1))))
        usage = meter.read()
        p50 = of_slow.latency_ms.p50 if of_slow.latency_ms else 0.0
        notes = {"slow_per_s": of_slow.ok_per_s, "slow_p50_ms": p50, **loop_lag(usage)}
        yield beside.row(plan, of_quick, usage, notes=notes)
