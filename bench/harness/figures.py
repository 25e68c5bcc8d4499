"""What a scenario measured."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from bench.harness.meter import Usage
from bench.harness.profile import Profile, profile
from bench.load import LoadResult

NO_NOTES: Mapping[str, float] = MappingProxyType({})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one scenario. Latencies in milliseconds, of right answers."""

    scenario: str
    case: str
    """Which variant of the scenario."""
    transport: str
    load: str
    """`c x m` for a closed loop of c connections with m callers each, or calls a second for an open one."""
    per_s: float
    """Right answers per second; rows of them for batches."""
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    outcomes: dict[str, int]
    cpu_us: dict[str, float]
    """CPU time per answer (per row for batches) by process."""
    rss_mb: dict[str, float]
    processes: int
    notes: dict[str, float] = {}
    """What else this scenario is about, with units in the names; of open loops how late the generator itself was."""
    profile: Profile | None = None
    """Loads at the same time share one."""


def row(
    where: Mapping[str, str],
    load: str,
    result: LoadResult,
    usage: Usage,
    rows: int = 1,
    notes: Mapping[str, float] = NO_NOTES,
) -> Row:
    """`where` names scenario, case and transport. `rows` that each call brings."""
    answered = max(1, rows * sum(part.ok + part.failed for part in result.slices))
    latency = result.latency_ms
    cpu_us = {name: round(used / answered * 1e6, 2) for name, used in usage.cpu_s.items()}
    cpu_us["generator"] = round(result.generator_cpu_s / answered * 1e6, 2)
    return Row(
        scenario=where["scenario"],
        case=where["case"],
        transport=where["transport"],
        load=load,
        per_s=round(result.ok_per_s * rows, 1),
        p50_ms=latency.p50 if latency else 0.0,
        p99_ms=latency.p99 if latency else 0.0,
        p99_9_ms=latency.p99_9 if latency else 0.0,
        outcomes=result.outcomes,
        cpu_us=cpu_us,
        rss_mb={name: round(used / 1e6, 1) for name, used in usage.rss_bytes.items()},
        processes=len(usage.rss_bytes),
        notes={**notes, **({"late_p99_ms": result.lateness_ms.p99} if result.lateness_ms else {})},
        profile=profile(usage, answered),
    )
