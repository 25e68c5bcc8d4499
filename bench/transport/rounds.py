"""The measurements: every cell of the comparison, servers in turn, round after round."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
import msgspec
from google.protobuf.wrappers_pb2 import BytesValue

from bench.load import Plan, load_now
from bench.transport.certificates import Certificate
from bench.transport.contenders import METHOD, Contender, Kind
from bench.transport.h2load import H2load, available

SHAPES = ((1, 1), (32, 1), (8, 8), (4, 32))
BODY = BytesValue(value=os.urandom(297)).SerializeToString()
"""300 bytes, which those servers that parse messages can parse."""
_DEADLINE_S = 5.0
_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_CHECKS = 5


class Headers(Enum):
    """What every call carries beside its path."""

    PLAIN = "plain"
    FIXED = "fixed"
    """A deadline and a trace id, the same in all calls: what h2load can send."""
    VARYING = "varying"
    """A deadline and a trace id, others in each call, as with real callers."""


class Cell(msgspec.Struct, frozen=True):
    """One combination that every server is measured in."""

    connections: int
    streams: int
    headers: Headers


class Figure(msgspec.Struct, frozen=True):
    """One measurement, or the median of several. CPU is the server's."""

    kind: Kind
    cell: Cell
    load: str
    """`h2load` or `bench.load`; a server that is quicker than its load says how quick the load is."""
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000: float


class WrongReplyError(RuntimeError):
    """A server did not echo."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one measurement."""

    measured_s: float
    warmup_s: float


def cells(shapes: Sequence[tuple[int, int]]) -> list[Cell]:
    return [Cell(*shape, headers) for headers in Headers for shape in shapes]


def verify(contender: Contender, certificate: Certificate) -> None:
    """A few calls by the reference client, compared byte by byte. Raises WrongReplyError."""
    asyncio.run(_verify(contender, certificate))


async def _verify(contender: Contender, certificate: Certificate) -> None:
    credentials = grpc.ssl_channel_credentials(certificate.chain)
    aio = grpc.aio
    made = aio.secure_channel(contender.address, credentials) if contender.kind.tls else None
    async with made or aio.insecure_channel(contender.address) as link:
        call: Any = link.unary_unary(METHOD)
        for number in range(_CHECKS):
            body = BytesValue(value=b"%d" % number * 30).SerializeToString()
            if await call(body, timeout=_DEADLINE_S) != body:
                raise WrongReplyError(f"{contender.kind.value} does not echo")


def measure(contender: Contender, cell: Cell, times: Times) -> Figure:
    by_h2load = available() and cell.headers is not Headers.VARYING
    before = contender.cpu_s()
    requests, rate, p50, p99 = (_h2load if by_h2load else _own)(contender, cell, times)
    cpu_s = contender.cpu_s() - before
    load = "h2load" if by_h2load else "bench.load"
    return Figure(contender.kind, cell, load, round(rate), p50, p99, cpu_s / requests * 1000)


def _h2load(contender: Contender, cell: Cell, times: Times) -> tuple[int, float, float, float]:
    fixed = (("grpc-timeout", f"{_DEADLINE_S:.0f}S"), ("traceparent", _TRACE))
    headers = () if cell.headers is Headers.PLAIN else fixed
    scheme = "https" if contender.kind.tls else "http"
    source = H2load(f"{scheme}://{contender.address}{METHOD}", BODY, headers, contender.placement.load)
    run = source.run(cell.connections, cell.streams, times.measured_s, times.warmup_s)
    return run.requests, run.requests_per_s, run.p50_ms, run.p99_ms


def _own(contender: Contender, cell: Cell, times: Times) -> tuple[int, float, float, float]:
    plan = Plan(
        target=contender.address,
        authority=contender.authority,
        method=METHOD,
        bodies=(BODY,),
        echo=True,
        connections=cell.connections,
        streams=cell.streams,
        duration_s=times.measured_s,
        warmup_s=times.warmup_s,
        deadline_s=None if cell.headers is Headers.PLAIN else _DEADLINE_S,
        spread_deadlines=cell.headers is Headers.VARYING,
        traceparent=cell.headers is Headers.VARYING,
    )
    result = load_now(plan, cpus=contender.placement.load)
    if result.failed or result.latency_ms is None:
        raise WrongReplyError(f"{contender.kind.value}: {result.outcomes}")
    requests = sum(part.ok for part in result.slices)
    return requests, result.ok_per_s, result.latency_ms.p50, result.latency_ms.p99


def in_turns(
    contenders: Sequence[Contender], wanted: Sequence[Cell], rounds: int, times: Times, done: Callable[[], None]
) -> Iterator[Figure]:
    """Medians over the rounds. Within a cell the servers follow each other closely, so that what else the machine does
    meets all of them; rounds go through all cells, so that it does not meet one cell alone."""
    seen: dict[tuple[Kind, Cell], list[Figure]] = {}
    for turn in range(rounds):
        for cell in wanted:
            for contender in contenders if turn % 2 == 0 else reversed(contenders):
                seen.setdefault((contender.kind, cell), []).append(measure(contender, cell, times))
                done()
    for figures in seen.values():
        yield median(figures)


def median(figures: Sequence[Figure]) -> Figure:
    """Of every field for itself."""
    first = figures[0]
    fields = ("requests_per_s", "p50_ms", "p99_ms", "cpu_s_per_1000")
    middles = {name: statistics.median(getattr(figure, name) for figure in figures) for name in fields}
    return msgspec.structs.replace(first, **{name: float(f"{value:.4g}") for name, value in middles.items()})
