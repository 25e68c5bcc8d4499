from __future__ import annotations

import msgspec
import pytest

from bench.load.calls import Caller
from bench.load.plan import Factory, Plan, PlanError

GOOD = {"target": "127.0.0.1:1", "method": "/a.B/C"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("connections", 0),
        ("streams", -1),
        ("duration_s", 0.0),
        ("rate_per_s", 0.0),
        ("warmup_s", -1.0),
        ("bodies", ()),
        ("method", "a.B/C"),
    ],
)
def test_a_plan_that_cannot_be_run_names_the_field(field: str, value: object) -> None:
    with pytest.raises(PlanError, match=field):
        Plan(**{**GOOD, field: value})


def test_a_plan_travels_as_json() -> None:
    plan = Plan(**GOOD, bodies=(b"\x00\xff", b"b"), make_check=Factory("m:f", {"a": [1]}), rate_per_s=5.0)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@pytest.mark.parametrize("name", ["nothing.here:make", "bench.load:nothing", "bench.load"])
def test_a_factory_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(PlanError, match=name):
        Caller(Plan(**GOOD, make_body=Factory(name)))
