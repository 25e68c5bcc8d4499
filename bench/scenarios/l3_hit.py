"""Users whose host partials are in Redis (L3) and not in the process: one MGET a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.harness import bodies
from bench.harness.figures import Row
from bench.harness.stage import BATCH, Case, Stage, again
from bench.harness.warm import call_all, first
from bench.load import Factory

USERS = 10_000
_ROWS = 50
_L3 = 3
_SETTINGS = "[cache]\nremote_max_entries = 1\nshared_timeout_s = 0.5\n"
"""No L2; and under saturation wait for Redis rather than ask the host, which would be another scenario."""


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties(guest=_SETTINGS) as parties:
        options: dict[str, Any] = {"signature": parties.signature.digest.hex(), "first": 0, "users": USERS}
        call_all(parties.address, BATCH, first(USERS // _ROWS, bodies.batch(**options, rows=_ROWS)))
        plan = stage.plan(
            parties,
            make_body=Factory("bench.harness.bodies:predict", options),
            make_check=Factory("bench.harness.bodies:predict_check", {"hosts": 1, "levels": [_L3]}),
        )
        yield from Case(stage, "L3 hit", "embedded Redis", parties).usual(again(plan))
