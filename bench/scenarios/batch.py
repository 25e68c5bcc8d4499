"""Batches of 50 and 1 000 new users, packed: rows per second."""

from __future__ import annotations

from collections.abc import Iterator

from bench.harness.figures import Row
from bench.harness.stage import BATCH, Case, Stage, closed
from bench.load import Factory

_ROWS = (50, 1_000)
_SHAPES = ((1, 1), (2, 2))
_PATIENT = "[limits]\npeer_timeout_s = 10.0\n"
"""Large batches queue behind each other; how long is what is measured."""


def play(stage: Stage) -> Iterator[Row]:
    for rows in _ROWS:
        with stage.parties(guest=_PATIENT) as parties:
            case = Case(stage, "batch", f"{rows:,} new users a call".replace(",", " "), parties)
            made = 0
            for shape in _SHAPES:
                options = {"signature": parties.signature.digest.hex(), "rows": rows}
                plan = stage.plan(
                    parties,
                    method=BATCH,
                    make_body=Factory(
                        "bench.harness.bodies:batch", {**options, "first": made, "users": stage.users - made}
                    ),
                    make_check=Factory("bench.harness.bodies:batch_check", {"hosts": 1, "rows": rows}),
                )
                plan = closed(plan, *shape)
                result, usage = case.run(plan)
                made += rows * sum(part.ok + part.failed for part in result.slices)
                yield case.row(plan, result, usage, rows)
