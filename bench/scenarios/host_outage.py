"""The host stalls and goes on, then dies and is started again, under load.

Every call must get an answer, and soon after the host is back every answer must be right."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import msgspec

from bench.harness.faults import beside, recovery_s
from bench.harness.figures import Row
from bench.harness.meter import Meter
from bench.harness.new_users import new_users
from bench.harness.parties import Parties
from bench.harness.stage import Case, Stage, opened

_RATE_PER_S = 200.0
_WATCHED_S = 3.0
"""After each return."""


def play(stage: Stage) -> Iterator[Row]:
    down_s = stage.seconds / 2
    with stage.parties() as parties:
        stalls, goes_on, dies = down_s, 2 * down_s, 2 * down_s + _WATCHED_S
        events = (
            (stalls, lambda: _signal_worker(parties, signal.SIGSTOP)),
            (goes_on, lambda: _signal_worker(parties, signal.SIGCONT)),
            (dies, lambda: _kill(parties)),
            (dies + down_s, parties.hosts[0].start),
        )
        plan = new_users(stage, parties, anywhere=True)(0)
        length = dies + down_s + 2 * _WATCHED_S
        plan = opened(msgspec.structs.replace(plan, duration_s=length, warmup_s=0.0), _RATE_PER_S)
        meter = Meter(parties)
        result, over = beside(plan, events)
        notes = {
            "recovery_from_stall_s": recovery_s(result, over[1], over[2] - down_s / 10),
            "recovery_from_death_s": recovery_s(result, over[3], over[3] + _WATCHED_S),
        }
        case = Case(stage, "host outage", "stalls, then dies and returns", parties)
        yield case.row(plan, result, meter.read(), notes=notes)


def _signal_worker(parties: Parties, number: signal.Signals) -> None:
    parties.hosts[0].worker().send_signal(number)


def _kill(parties: Parties) -> None:
    """The supervisor and with it, by the kernel, its worker and its cache."""
    process = parties.hosts[0].process
    if process is not None:
        process.kill()
        process.wait()
