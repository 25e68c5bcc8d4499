"""Where the time of a load goes, by what the guest and its hosts count of themselves."""

from __future__ import annotations

import math

import msgspec

from bench.harness.counters import Counters
from bench.harness.meter import Usage
from serving.telemetry.stages import STAGES

WORK = ("prepare", "app", "local", "merge", "reply")
ELSE = "else"
_INFER = "/tessera.v1.Federation/Infer"
_LAG = "tessera_event_loop_lag_seconds"


class HostCalls(msgspec.Struct, frozen=True, kw_only=True):
    """Of the guest to one host."""

    users: float
    """In a call, mean."""
    wait_us: float
    """How long a round waited until its call left, mean."""
    call_us: float
    """From the call to its reply, mean."""
    host_us: float | None
    """What the host took for it, mean; the rest is the way, and waiting for a turn on both sides. Null when its process
    was another at the end."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Times by the clock, so that another process on the same core counts. Repeats, answered from the result cache
    (L1), meet no stage."""

    calls_per_round: float
    rows_per_round: float
    """0 when no round ran."""
    call_us: float
    """From request to reply within the guest, mean over calls, repeats too."""
    work_us: dict[str, float]
    """What the guest's event loop does in stages, per answer (per row for batches), as `cpu_us` of the row: those of
    `WORK`. `else`: its CPU time beside these."""
    round_us: dict[str, float]
    """Mean of a round that came to this stage, which all its calls wait for. Those of `STAGES` that any came to."""
    hosts: dict[str, HostCalls]


def profile(usage: Usage, answers: int) -> Profile | None:
    """None when the guest's worker was another at the end. `answers` that its CPU time is divided by."""
    guest = usage.counted.get(usage.guest)
    if guest is None:
        return None
    rounds = guest.total("tessera_stage_seconds_count", stage="prepare")
    cpu_s = usage.cpu_s.get(f"{usage.guest} worker", 0.0)
    calls = (_host_calls(guest, party, usage.counted.get(party)) for party in usage.hosts)
    return Profile(
        calls_per_round=_ratio(guest.total("tessera_request_rows_count"), rounds),
        rows_per_round=_ratio(guest.total("tessera_request_rows_sum"), rounds),
        call_us=_us(guest.mean("tessera_request_seconds")),
        work_us={part: _us(seconds / answers) for part, seconds in _work_s(guest, cpu_s).items()},
        round_us={
            stage: _us(guest.mean("tessera_stage_seconds", stage=stage))
            for stage in STAGES
            if guest.total("tessera_stage_seconds_count", stage=stage)
        },
        hosts={party: one for party, one in zip(usage.hosts, calls, strict=True) if one is not None},
    )


def loop_lag(usage: Usage) -> dict[str, float]:
    """How late the guest's event loop was, as notes. It looks ten times a second, so there is no p99 of a short load:
    the mean, and the bound of the bucket with the largest, unless that is the last one. uvloop's clock tells whole
    milliseconds."""
    guest = usage.counted.get(usage.guest)
    if guest is None or not guest.total(f"{_LAG}_count"):
        return {}
    notes = {"loop_lag_mean_ms": guest.mean(_LAG) * 1e3, "loop_lag_max_at_most_ms": guest.at_most(_LAG, 1.0) * 1e3}
    return {name: round(value, 2) for name, value in notes.items() if math.isfinite(value)}


def _work_s(guest: Counters, cpu_s: float) -> dict[str, float]:
    parts = {stage: guest.total("tessera_stage_seconds_sum", stage=stage) for stage in WORK}
    return {**parts, ELSE: max(0.0, cpu_s - sum(parts.values()))}


def _host_calls(guest: Counters, party: str, host: Counters | None) -> HostCalls | None:
    calls = guest.total("tessera_peer_batches_total", party=party)
    if not calls:
        return None
    return HostCalls(
        users=_ratio(guest.total("tessera_peer_rows_total", party=party), calls),
        wait_us=_us(guest.mean("tessera_peer_wait_seconds", party=party)),
        call_us=_us(guest.mean("tessera_peer_call_seconds", party=party)),
        host_us=None if host is None else _us(host.mean("tessera_request_seconds", method=_INFER)),
    )


def _ratio(total: float, count: float) -> float:
    return round(total / count, 2) if count else 0.0


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 2)
