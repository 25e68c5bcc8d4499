"""Results as a file and as tables."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.transport.contenders import Kind
from bench.transport.flood import FloodFigure
from bench.transport.idle import IdleFigure
from bench.transport.rounds import Cell, Figure, Headers

_TITLES = {
    Headers.PLAIN: "no metadata",
    Headers.FIXED: "deadline and traceparent, the same in all calls",
    Headers.VARYING: "deadline and traceparent, others in each call",
}


class Goal(msgspec.Struct, frozen=True):
    """A ratio that is asked for, and what it came to; None when one of its servers did not run."""

    name: str
    wanted: float
    measured: float | None

    @property
    def met(self) -> bool | None:
        return None if self.measured is None else self.measured >= self.wanted


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    python: str = platform.python_version()
    cores: str
    rounds: int
    seconds: float
    skipped: dict[str, str]
    """Servers that did not run, and why."""
    figures: list[Figure]
    idle: list[IdleFigure]
    flood: list[FloodFigure]
    goals: list[Goal]


def goals(figures: Sequence[Figure]) -> list[Goal]:
    """Ratios to the servers of the same run, load by plain headers."""

    def figure(kind: Kind, shape: tuple[int, int]) -> Figure | None:
        cell = Cell(*shape, Headers.PLAIN)
        return next((item for item in figures if item.kind is kind and item.cell == cell), None)

    def more(name: str, wanted: float, kind: Kind, other: Kind, shape: tuple[int, int]) -> Goal:
        ours, theirs = figure(kind, shape), figure(other, shape)
        measured = ours.requests_per_s / theirs.requests_per_s if ours and theirs else None
        return Goal(f"{name} at {shape}, requests/s", wanted, measured)

    ours, theirs = figure(Kind.NATIVE, (1, 1)), figure(Kind.GRPC_AIO, (1, 1))
    quicker = theirs.p50_ms / ours.p50_ms if ours and theirs else None
    return [
        more("native : C++ callback", 3, Kind.NATIVE, Kind.CALLBACK, (4, 32)),
        more("native : C++ callback", 1, Kind.NATIVE, Kind.CALLBACK, (1, 1)),
        more("native : grpc.aio", 12, Kind.NATIVE, Kind.GRPC_AIO, (4, 32)),
        more("native : grpc.aio", 6, Kind.NATIVE, Kind.GRPC_AIO, (32, 1)),
        more("native : pygrpc-native", 3, Kind.NATIVE, Kind.PYGRPC, (4, 32)),
        Goal("grpc.aio : native at (1, 1), p50", 3, quicker),
        more("message, native : grpc.aio", 5, Kind.NATIVE_MESSAGE, Kind.GRPC_AIO_MESSAGE, (4, 32)),
        more("TLS, native : grpc.aio", 5, Kind.NATIVE_TLS, Kind.GRPC_AIO_TLS, (4, 32)),
    ]


def write(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def show(report: Report, console: Console) -> None:
    for headers in Headers:
        of_these = [figure for figure in report.figures if figure.cell.headers is headers]
        if of_these:
            console.print(_figures(headers, of_these))
    for table in (_idle(report.idle), _flood(report.flood), _goals(report.goals)):
        if table.row_count:
            console.print(table)
    for name, reason in report.skipped.items():
        console.print(f"without {name}: {reason}", style="yellow", highlight=False)


def _figures(headers: Headers, figures: Sequence[Figure]) -> Table:
    load = sorted({figure.load for figure in figures})
    table = Table("(c, m)", "server", title=f"{_TITLES[headers]}; load by {' and '.join(load)}")
    for name in ("requests/s", "p50 ms", "p99 ms", "CPU s per 1 000", "requests/s :", "CPU : grpc.aio"):
        table.add_column(name, justify="right")
    for figure, reference in _with_reference(figures):
        ratios = ("", "")
        if reference is not None:
            rate = figure.requests_per_s / reference.requests_per_s
            ratios = (f"{rate:.1f}", f"{figure.cpu_s_per_1000 / reference.cpu_s_per_1000:.3f}")
        shape = f"({figure.cell.connections}, {figure.cell.streams})"
        numbers = (f"{figure.requests_per_s:,.0f}", f"{figure.p50_ms:.3f}", f"{figure.p99_ms:.2f}")
        table.add_row(shape, figure.kind.value, *numbers, f"{figure.cpu_s_per_1000:.4f}", *ratios)
    return table


def _with_reference(figures: Sequence[Figure]) -> Iterator[tuple[Figure, Figure | None]]:
    known = {(figure.kind, figure.cell): figure for figure in figures}
    order = list(Kind)
    for figure in sorted(figures, key=lambda item: (item.cell.connections * item.cell.streams, order.index(item.kind))):
        yield figure, known.get((figure.kind.reference, figure.cell))


def _idle(figures: Sequence[IdleFigure]) -> Table:
    table = Table("server", "idle connections", "kB each")
    for figure in figures:
        table.add_row(figure.kind.value, f"{figure.connections:,}", f"{figure.kb_each:.1f}")
    return table


def _flood(figures: Sequence[FloodFigure]) -> Table:
    title = "200 calls/s of one client, alone and beside a flood"
    table = Table("server", "alone p50", "p99 ms", "flooded p50", "p99 ms", "flood/s", title=title)
    for figure in figures:
        latencies = (figure.alone_p50_ms, figure.alone_p99_ms, figure.flooded_p50_ms, figure.flooded_p99_ms)
        table.add_row(figure.kind.value, *(f"{value:.2f}" for value in latencies), f"{figure.flood_per_s:,.0f}")
    return table


def _goals(wanted: Sequence[Goal]) -> Table:
    table = Table("ratio", "wanted", "measured", "")
    for goal in wanted:
        measured = "not measured" if goal.measured is None else f"{goal.measured:.1f}"
        mark = {None: "", True: "[green]met", False: "[red]missed"}[goal.met]
        table.add_row(goal.name, f"{goal.wanted:g}", measured, mark)
    return table
