"""The file of a host's features changes and is read again, one time after the other: what do callers notice?

The p99 of calls of new users should stay within twice their p99 while nothing else happens.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import msgspec

from bench.harness.faults import beside
from bench.harness.figures import Row
from bench.harness.meter import Meter
from bench.harness.new_users import new_users
from bench.harness.parties import Parties
from bench.harness.stage import Case, Stage, opened
from bench.load import Plan
from tessera.v1 import admin_pb2 as wire

_RATE_PER_S = 300.0
_FULL, _TIMES = 1_000_000, 2
"""Full runs have so many times the users of other scenarios: a file that takes a while to be read."""
_LONG = 3
"""Times the usual length of a measurement."""
_LOOK_S = 0.02
_READ = "has changed"
"""Says the host's log once the file is read."""
_NO_L3 = "[cache]\nembedded = false\n"


def play(stage: Stage) -> Iterator[Row]:
    if stage.users >= _FULL:
        stage = dataclasses.replace(stage, users=_TIMES * stage.users)
    for table in ("users.parquet", "users.csv"):
        with stage.parties(guest=_NO_L3, table=table) as parties:
            yield from _beside_reloads(stage, parties, table)


def _beside_reloads(stage: Stage, parties: Parties, table: str) -> Iterator[Row]:
    parties.hosts[0].admin("SetLogLevel", wire.SetLogLevelRequest(level="info"))
    plans, kind = new_users(stage, parties), table.rpartition(".")[2]
    quiet_plan = opened(_longer(plans(0), stage), _RATE_PER_S)
    quiet = Case(stage, "feature reload", f"{kind}, quiet", parties).measure(quiet_plan)
    yield quiet
    asked = 2 * int(_RATE_PER_S * (quiet_plan.warmup_s + quiet_plan.duration_s))
    plan = opened(_longer(plans(asked), stage), _RATE_PER_S)
    took: list[float] = []
    meter = Meter(parties)
    end = time.monotonic() + plan.warmup_s + plan.duration_s
    result, _ = beside(plan, [(0.0, lambda: took.extend(_reload(parties, table, end)))])
    case = Case(stage, "feature reload", f"{kind}, beside reloads", parties)
    row = case.row(plan, result, meter.read())
    row.notes["reloads"] = len(took)
    row.notes["reload_s"] = round(sum(took) / len(took), 2) if took else 0.0
    row.notes["p99_by_quiet"] = round(row.p99_ms / quiet.p99_ms, 2) if quiet.p99_ms else 0.0
    yield row


def _longer(plan: Plan, stage: Stage) -> Plan:
    return msgspec.structs.replace(plan, duration_s=_LONG * stage.seconds)


def _reload(parties: Parties, table: str, end: float) -> Iterator[float]:
    """Seconds from each change of the file until it was read. After `end` no look-up has the host look at the file."""
    host = parties.hosts[0]
    begun, read = time.monotonic(), -1
    while time.monotonic() < end:
        if host.log.count(_READ) == read:
            time.sleep(_LOOK_S)
            continue
        if read >= 0:
            yield time.monotonic() - begun
        begun, read = time.monotonic(), host.log.count(_READ)
        (host.folder / table).touch()
