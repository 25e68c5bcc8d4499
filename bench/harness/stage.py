"""Where a scenario plays: which transport, how long, and its usual loads."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.harness.figures import NO_NOTES, Row, row
from bench.harness.meter import Meter, Usage
from bench.harness.parties import Parties, running
from bench.load import LoadResult, Plan, load_now
from serving.transport import Transport, frames

PREDICT = "/tessera.v1.Inference/Predict"
BATCH = "/tessera.v1.Inference/BatchPredict"
DEADLINE_S = 2.0
"""Of every call, as real callers give one."""


@dataclass(frozen=True, slots=True)
class Stage:
    """`seconds` is the length of one measurement; hosts know `users` users."""

    transport: Transport
    seconds: float
    users: int

    @property
    def named(self) -> str:
        """The transport in figures, and whether the native one is compiled where it runs."""
        compiled = self.transport is Transport.NATIVE and not frames.__file__.endswith(".py")
        return f"{self.transport.value}, compiled" if compiled else self.transport.value

    @contextlib.contextmanager
    def parties(self, hosts: int = 1, guest: str = "", table: str = "users.parquet") -> Iterator[Parties]:
        """See `running`."""
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            made = running(folder, transport=self.transport, hosts=hosts, users=self.users, guest=guest, table=table)
            with made as parties:
                yield parties

    def plan(self, parties: Parties, **fields: Any) -> Plan:
        """Calls of `Predict` with a deadline; `fields` say what they carry and what is different."""
        usual = {"method": PREDICT, "deadline_s": DEADLINE_S, "duration_s": self.seconds, "warmup_s": self.seconds / 4}
        return Plan(**{"target": parties.address, **usual, **fields})


@dataclass(frozen=True, slots=True)
class Case:
    """One variant of a scenario, with its parties running."""

    stage: Stage
    scenario: str
    name: str
    parties: Parties

    def measure(self, plan: Plan, rows: int = 1, processes: int = 1) -> Row:
        """Run the plan and meter all parties meanwhile. `rows` that each call brings."""
        return self.row(plan, *self.run(plan, processes), rows)

    def run(self, plan: Plan, processes: int = 1) -> tuple[LoadResult, Usage]:
        meter = Meter(self.parties)
        return load_now(plan, processes), meter.read()

    def row(
        self, plan: Plan, result: LoadResult, usage: Usage, rows: int = 1, notes: Mapping[str, float] = NO_NOTES
    ) -> Row:
        where = {"scenario": self.scenario, "case": self.name, "transport": self.stage.named}
        return row(where, named(plan), result, usage, rows, notes)

    def usual(self, plan_from: Callable[[int], Plan]) -> Iterator[Row]:
        """Saturated, one at a time, and in an open loop at a quarter of what it can do: calls that come one by one cost
        the generator thrice as much as those of a closed loop. `plan_from` is told how many calls were made before, so
        that its users can be new ones."""
        made, saturated = 0, 0.0
        for shape in ((4, 32), (1, 1), None):
            plan = plan_from(made)
            plan = opened(plan, saturated / 4) if shape is None else closed(plan, *shape)
            result, usage = self.run(plan)
            yield self.row(plan, result, usage)
            made += sum(part.ok + part.failed for part in result.slices)
            saturated = saturated or result.ok_per_s
            if not saturated:
                return


def again(plan: Plan) -> Callable[[int], Plan]:
    """The same for every load."""
    return lambda made: plan


def closed(plan: Plan, connections: int, streams: int) -> Plan:
    return msgspec.structs.replace(plan, connections=connections, streams=streams, rate_per_s=None)


def opened(plan: Plan, rate_per_s: float, connections: int = 4) -> Plan:
    """Poisson arrivals."""
    return msgspec.structs.replace(plan, connections=connections, rate_per_s=round(rate_per_s, 1))


def named(plan: Plan) -> str:
    if plan.rate_per_s is None:
        return f"{plan.connections} x {plan.streams}"
    return f"{plan.rate_per_s:,.0f}/s"
