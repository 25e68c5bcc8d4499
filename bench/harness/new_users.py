"""Requests of users that nobody asked for before."""

from __future__ import annotations

from collections.abc import Callable

from bench.harness.parties import Parties
from bench.harness.stage import Stage
from bench.load import Factory, Plan

_NOT_CACHED = 0


def new_users(stage: Stage, parties: Parties, anywhere: bool = False) -> Callable[[int], Plan]:
    """Plans by how many users were asked for so far. A reply that comes from a cache is a wrong one, unless it may come
    from `anywhere`: there are too few users for so long a run."""

    def plan_from(made: int) -> Plan:
        first = made % stage.users if anywhere else made
        options = {"signature": parties.signature.digest.hex(), "first": first, "users": stage.users - first}
        checked = {"hosts": len(parties.hosts), "levels": [] if anywhere else [_NOT_CACHED]}
        return stage.plan(
            parties,
            make_body=Factory("bench.harness.bodies:predict", options),
            make_check=Factory("bench.harness.bodies:predict_check", checked),
        )

    return plan_from
