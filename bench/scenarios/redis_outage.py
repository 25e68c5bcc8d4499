"""The guest's cache server stalls and goes on, then dies and is started again, while every request needs it.

The host is asked instead, and callers get their answers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec

from bench.harness import bodies
from bench.harness.faults import beside
from bench.harness.figures import Row
from bench.harness.meter import Meter
from bench.harness.stage import BATCH, Case, Stage, opened
from bench.harness.warm import call_all, first
from bench.load import Factory

_RATE_PER_S = 200.0
_USERS, _ROWS = 10_000, 50
_NO_L2 = "[cache]\nremote_max_entries = 1\n"


def play(stage: Stage) -> Iterator[Row]:
    down_s = stage.seconds / 2
    with stage.parties(guest=_NO_L2) as parties:
        options: dict[str, Any] = {"signature": parties.signature.digest.hex(), "first": 0, "users": _USERS}
        call_all(parties.address, BATCH, first(_USERS // _ROWS, bodies.batch(**options, rows=_ROWS)))
        check = Factory("bench.harness.bodies:predict_check", {"hosts": 1})
        plan = stage.plan(parties, make_body=Factory("bench.harness.bodies:predict", options), make_check=check)
        plan = msgspec.structs.replace(plan, warmup_s=0.0)
        yield Case(stage, "Redis outage", "before", parties).measure(opened(plan, _RATE_PER_S))
        during = opened(msgspec.structs.replace(plan, duration_s=4 * down_s), _RATE_PER_S)
        for name, numbers in (("stalls", (signal.SIGSTOP, signal.SIGCONT)), ("dies", (signal.SIGKILL,))):
            send = parties.guest.cache_server().send_signal
            events = [(down_s * (place + 1), partial(send, number)) for place, number in enumerate(numbers)]
            meter = Meter(parties)
            result, _ = beside(during, events)
            yield Case(stage, "Redis outage", name, parties).row(during, result, meter.read())
