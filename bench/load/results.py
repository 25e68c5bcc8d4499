"""What a run of the generator measured, as JSON. The field docstrings are the schema."""

from __future__ import annotations

import msgspec

SCHEMA = 1
OK, WRONG_REPLY, UNANSWERED = "OK", "WRONG_REPLY", "UNANSWERED"
SLICE_S = 0.1


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. Up to 0.1 % coarse (HdrHistogram with three digits)."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float
    mean: float


class Slice(msgspec.Struct, frozen=True, array_like=True):
    """Calls that ended within one slice of the run, warm-up included."""

    ok: int
    failed: int


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run, over all its processes."""

    schema: int = SCHEMA
    mode: str
    """`open` (calls leave at their intended times, whatever the server does) or `closed` (a caller waits for its
    reply before it calls again, so that a slow server is asked less)."""
    asked_per_s: float | None
    """Intended calls per second; null in a closed loop."""
    started: float
    """When the warm-up began, on the machine's monotonic clock."""
    duration_s: float
    """The measured part, after the warm-up."""
    calls: int
    """Calls whose intended time lies in the measured part."""
    outcomes: dict[str, int]
    """How those ended: a gRPC status name, WRONG_REPLY (status OK, but not the expected bytes) or UNANSWERED (still
    without an answer when the drain was over)."""
    ok_per_s: float
    """Right answers that arrived within the measured part, per second of it."""
    latency_ms: Percentiles | None
    """Of the right answers, from the intended time on. Null without any."""
    failed_latency_ms: Percentiles | None
    """Of all others; the unanswered ones with the time they were waited for."""
    lateness_ms: Percentiles | None
    """How much after its intended time a call left: the generator's own share in `latency_ms`. Where it is not small
    beside that, the generator was the bottleneck (or `max_in_flight` was reached). Null in a closed loop."""
    generator_cpu_s: float
    """CPU time of the generator's processes, warm-up included."""
    most_in_flight: int
    slice_s: float = SLICE_S
    slices: tuple[Slice, ...]
    """Ends of calls over time, from the start of the warm-up."""
    histograms: dict[str, str]
    """`ok`, `failed` and `lateness` in HdrHistogram's compressed base64 form, in nanoseconds."""

    @property
    def wrong(self) -> int:
        return self.outcomes.get(WRONG_REPLY, 0)

    @property
    def failed(self) -> int:
        """Calls that did not end with the right answer."""
        return self.calls - self.outcomes.get(OK, 0)
