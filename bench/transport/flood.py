"""One client takes all it can get while another makes a few calls: how long do those take?"""

from __future__ import annotations

import threading

import msgspec

from bench.load import Plan, load_now
from bench.load.arrivals import Arrivals
from bench.transport.contenders import METHOD, Contender, Kind
from bench.transport.h2load import H2load, available
from bench.transport.rounds import BODY, WrongReplyError

_RATE_PER_S = 200.0
_FLOOD = (4, 32)
_LEAD_S = 0.5


class FloodFigure(msgspec.Struct, frozen=True):
    """Of 200 calls a second over a connection of their own, open loop, alone and beside a flood of 4 x 32 streams."""

    kind: Kind
    alone_p50_ms: float
    alone_p99_ms: float
    flooded_p50_ms: float
    flooded_p99_ms: float
    flood_per_s: float


def flood(contender: Contender, seconds: float) -> FloodFigure | None:
    """None where there is no second source of load."""
    if not available():
        return None
    alone = _few_calls(contender, seconds)
    scheme = "https" if contender.kind.tls else "http"
    source = H2load(f"{scheme}://{contender.address}{METHOD}", BODY, (), contender.placement.load)
    rates: list[float] = []

    def run() -> None:
        rates.append(source.run(*_FLOOD, seconds + 2 * _LEAD_S, _LEAD_S).requests_per_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        flooded = _few_calls(contender, seconds)
    finally:
        thread.join()
    return FloodFigure(contender.kind, *alone, *flooded, rates[0])


def _few_calls(contender: Contender, seconds: float) -> tuple[float, float]:
    plan = Plan(
        target=contender.address,
        authority=contender.authority,
        method=METHOD,
        bodies=(BODY,),
        echo=True,
        rate_per_s=_RATE_PER_S,
        arrivals=Arrivals.CONSTANT,
        duration_s=seconds,
        warmup_s=_LEAD_S,
    )
    result = load_now(plan, cpus=contender.placement.load)
    if result.failed or result.latency_ms is None:
        raise WrongReplyError(f"{contender.kind.value}: {result.outcomes}")
    return result.latency_ms.p50, result.latency_ms.p99
