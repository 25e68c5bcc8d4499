"""What a day brings, at once: repeated cases, users seen before, new users, batches and a local model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from bench.harness import bodies, local
from bench.harness.faults import together
from bench.harness.figures import Row
from bench.harness.meter import Meter, Usage
from bench.harness.parties import Parties
from bench.harness.profile import profile
from bench.harness.stage import BATCH, PREDICT, Case, Stage, opened
from bench.harness.warm import call_all, first
from bench.load import Factory, Plan

_KNOWN = 2_000
_ROWS = 50
_LENGTH = 3
"""Times as long as other measurements: there are several streams in it."""


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties() as parties:
        streams = _streams(stage, parties)
        meter = Meter(parties)
        results = asyncio.run(together([plan for _, plan, _ in streams]))
        usage = meter.read()
        total = sum(part.ok + part.failed for result in results for part in result.slices)
        for (name, plan, rows), result in zip(streams, results, strict=True):
            row = Case(stage, "mixed day", name, parties).row(plan, result, usage, rows)
            yield msgspec.structs.replace(row, cpu_us=_per_call(usage, total), profile=profile(usage, max(1, total)))


def _per_call(usage: Usage, total: int) -> dict[str, float]:
    """Over all streams: nobody can say which one a process worked for."""
    return {name: round(used / max(1, total) * 1e6, 2) for name, used in usage.cpu_s.items()}


def _streams(stage: Stage, parties: Parties) -> list[tuple[str, Plan, int]]:
    """Names, plans and rows per call."""
    digest = parties.signature.digest.hex()
    known: dict[str, Any] = {"signature": digest, "first": 0, "users": _KNOWN}
    cases: dict[str, Any] = {"signature": digest, "first": _KNOWN, "users": _KNOWN, "cases": True}
    call_all(parties.address, BATCH, first(_KNOWN // _ROWS, bodies.batch(**known, rows=_ROWS)))
    call_all(parties.address, PREDICT, first(_KNOWN, bodies.predict(**cases)))
    half = stage.users // 2
    new: dict[str, Any] = {"signature": digest, "first": 2 * _KNOWN, "users": half - 2 * _KNOWN}
    batches: dict[str, Any] = {"signature": digest, "first": half, "users": half, "rows": _ROWS}
    plan = stage.plan(parties, make_check=Factory("bench.harness.bodies:predict_check", {"hosts": 1}))
    change = msgspec.structs.replace
    body = "bench.harness.bodies:predict"
    of_batches = change(
        plan,
        method=BATCH,
        make_body=Factory("bench.harness.bodies:batch", batches),
        make_check=Factory("bench.harness.bodies:batch_check", {"hosts": 1, "rows": _ROWS}),
    )
    streams = (
        ("repeated cases", change(plan, make_body=Factory(body, cases)), 300.0, 1),
        ("users seen before", change(plan, make_body=Factory(body, known)), 200.0, 1),
        ("new users", change(plan, make_body=Factory(body, new)), 100.0, 1),
        ("batches of 50", of_batches, 5.0, _ROWS),
        ("local ONNX", local.quick(parties).plan(stage, parties), 100.0, 1),
    )
    longer = _LENGTH * stage.seconds
    return [(name, change(opened(made, rate), duration_s=longer), rows) for name, made, rate, rows in streams]
