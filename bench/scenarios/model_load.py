"""Versions of a large model are loaded, put online and unloaded, one after the other: what do callers of another model
notice?

The p99 of the quick model should stay within 1.5 times its p99 while nothing else happens.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from bench.harness import local, onnx_models
from bench.harness.faults import beside
from bench.harness.figures import Row
from bench.harness.meter import Meter
from bench.harness.parties import Parties
from bench.harness.stage import Case, Stage, opened
from bench.load import Plan
from tessera.v1 import admin_pb2 as wire

LARGE, LARGE_MB = "large", 400
LARGE_MB_QUICK = 40
_RATE_PER_S = 300.0
_LONG_ENOUGH_S = 2.0
"""A measurement that sees several loads of the large model."""
_TURNS = 3


def play(stage: Stage) -> Iterator[Row]:
    """By turns; of the turns that with the median ratio."""
    thorough = stage.seconds >= _LONG_ENOUGH_S
    megabytes = LARGE_MB if thorough else LARGE_MB_QUICK
    with stage.parties(hosts=0) as parties:
        quick = local.quick(parties)
        for version in ("1", "2"):
            onnx_models.write_large(parties.guest.registry, parties.guest.party, LARGE, version, megabytes)
        plan = opened(quick.plan(stage, parties), _RATE_PER_S)
        alone = Case(stage, "model load", "the quick one alone", parties)
        loading = Case(stage, "model load", f"beside loads of {megabytes} MB", parties)
        swaps = _swaps(parties)
        turns = [(alone.measure(plan), _beside(loading, plan, swaps)) for _ in range(_TURNS if thorough else 1)]
    turns.sort(key=_ratio)
    quiet, row = turns[len(turns) // 2]
    row.notes["p99_by_quiet"] = _ratio(turns[len(turns) // 2])
    row.notes["p99_by_quiet_least"], row.notes["p99_by_quiet_most"] = _ratio(turns[0]), _ratio(turns[-1])
    yield from (quiet, row)


def _beside(case: Case, plan: Plan, swaps: Iterator[float]) -> Row:
    """While as many swaps follow each other as begin in time."""
    swapped: list[float] = []
    meter = Meter(case.parties)
    end = time.monotonic() + plan.warmup_s + plan.duration_s

    def swap() -> None:
        while time.monotonic() < end:
            swapped.append(next(swaps))

    result, _ = beside(plan, [(0.0, swap)])
    notes = {"swaps": len(swapped), "swap_s": round(sum(swapped) / len(swapped), 2)}
    return case.row(plan, result, meter.read(), notes=notes)


def _ratio(turn: tuple[Row, Row]) -> float:
    quiet, beside_loads = turn
    return round(beside_loads.p99_ms / quiet.p99_ms, 2) if quiet.p99_ms else 0.0


def _swaps(parties: Parties) -> Iterator[float]:
    """Seconds that each took."""
    guest, revision = parties.guest, 0
    for new, old in itertools.cycle((("1", "2"), ("2", "1"))):
        begun = time.monotonic()
        guest.load(LARGE, new)
        for _ in range(2):  # the previous binding needs its version too
            guest.online(LARGE, LARGE, new, revision)
            revision += 1
        if revision > 2:
            guest.admin("Unload", wire.UnloadRequest(model=LARGE, version=old))
        yield time.monotonic() - begun
