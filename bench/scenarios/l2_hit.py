"""Users whose host partials are in the process (L2): local half and merge, no call to another party."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.harness import bodies
from bench.harness.figures import Row
from bench.harness.stage import BATCH, Case, Stage, again
from bench.harness.warm import call_all, first
from bench.load import Factory

USERS = 10_000
_ROWS = 1_000
_L2 = 2


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties() as parties:
        options: dict[str, Any] = {"signature": parties.signature.digest.hex(), "first": 0, "users": USERS}
        call_all(parties.address, BATCH, first(USERS // _ROWS, bodies.batch(**options, rows=_ROWS)))
        for name, named in (("packed features", False), ("named features", True)):
            plan = stage.plan(
                parties,
                make_body=Factory("bench.harness.bodies:predict", {**options, "named": named}),
                make_check=Factory("bench.harness.bodies:predict_check", {"hosts": 1, "levels": [_L2]}),
            )
            yield from Case(stage, "L2 hit", name, parties).usual(again(plan))
