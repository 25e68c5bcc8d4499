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
from tessera.v1 import admin_pb2 as wire

LARGE, LARGE_MB = "large", 400
LARGE_MB_QUICK = 40
_RATE_PER_S = 300.0
_LONG_ENOUGH_S = 2.0
"""A measurement that sees several loads of the large model."""


def play(stage: Stage) -> Iterator[Row]:
    megabytes = LARGE_MB if stage.seconds >= _LONG_ENOUGH_S else LARGE_MB_QUICK
    with stage.parties(hosts=0) as parties:
        quick = local.quick(parties)
        for version in ("1", "2"):
            onnx_models.write_large(parties.guest.registry, parties.guest.party, LARGE, version, megabytes)
        plan = opened(quick.plan(stage, parties), _RATE_PER_S)
        quiet = Case(stage, "model load", "the quick one alone", parties).measure(plan)
        yield quiet
        swapped: list[float] = []
        meter = Meter(parties)
        end = time.monotonic() + plan.warmup_s + plan.duration_s
        result, _ = beside(plan, [(0.0, lambda: swapped.extend(_swap(parties, end)))])
        row = Case(stage, "model load", f"beside loads of {megabytes} MB", parties).row(plan, result, meter.read())
        row.notes["swaps"] = len(swapped)
        row.notes["swap_s"] = round(sum(swapped) / len(swapped), 2)
        row.notes["p99_by_quiet"] = round(row.p99_ms / quiet.p99_ms, 2) if quiet.p99_ms else 0.0
        yield row


def _swap(parties: Parties, end: float) -> Iterator[float]:
    """Seconds that each took, of those that began before `end`."""
    guest, revision = parties.guest, 0
    for new, old in itertools.cycle((("1", "2"), ("2", "1"))):
        begun = time.monotonic()
        if begun >= end:
            return
        guest.load(LARGE, new)
        for _ in range(2):  # the previous binding needs its version too
            guest.online(LARGE, LARGE, new, revision)
            revision += 1
        if revision > 2:
            guest.admin("Unload", wire.UnloadRequest(model=LARGE, version=old))
        yield time.monotonic() - begun
