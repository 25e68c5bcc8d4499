"""The same cases again: answers come from the result cache (L1) and no model runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.harness import bodies
from bench.harness.figures import Row
from bench.harness.stage import PREDICT, Case, Stage, again
from bench.harness.warm import call_all, first
from bench.load import Factory

USERS = 5_000
_L1 = 1


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties() as parties:
        options: dict[str, Any] = {
            "signature": parties.signature.digest.hex(),
            "first": 0,
            "users": USERS,
            "cases": True,
        }
        call_all(parties.address, PREDICT, first(USERS, bodies.predict(**options)))
        plan = stage.plan(
            parties,
            make_body=Factory("bench.harness.bodies:predict", options),
            make_check=Factory("bench.harness.bodies:predict_check", {"hosts": 1, "cache": _L1}),
        )
        yield from Case(stage, "L1 hit", "5 000 cases", parties).usual(again(plan))
