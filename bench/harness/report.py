"""Figures of all scenarios: kept in a file, shown as a table, written into the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from bench.harness.figures import Row

BEGIN, END = "<!-- scenarios: written by make bench -->", "<!-- end of scenarios -->"
_HEADS = ("scenario", "case", "transport", "load", "answers/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs per answer",
    "MB", "processes", "notes")  # fmt: skip
_SMALL_US = 1.0


def keep(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Put these in the place of earlier ones of the same scenarios and transports; returns what is now in the file."""
    played = {(row.scenario, row.transport) for row in rows}
    earlier = msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []
    kept = [row for row in earlier if (row.scenario, row.transport) not in played]
    together = sorted([*kept, *rows], key=lambda row: (row.scenario, row.transport))  # stable: loads stay in order
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(together), indent=1) + b"\n")
    return together


def table(rows: Sequence[Row]) -> Table:
    """For the terminal."""
    shown = Table(*_HEADS)
    for row in rows:
        shown.add_row(*_cells(row))
    return shown


def write_table(page: Path, rows: Sequence[Row]) -> None:
    """Replace what stands between the two marks."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [f"| {' | '.join(_HEADS)} |", "|" + "---|" * len(_HEADS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    page.write_text("\n".join([before + BEGIN, *lines, END]) + after)


def _cells(row: Row) -> list[str]:
    times = sorted(row.cpu_us.items(), key=lambda item: -item[1])
    cpu = ", ".join(f"{name} {used:,.0f}" for name, used in times if used >= _SMALL_US)
    failed = [f"{name} {count:,}" for name, count in row.outcomes.items() if name != "OK"]
    notes = [f"{name} {value:g}" for name, value in row.notes.items()]
    latencies = (f"{value:,.2f}" for value in (row.p50_ms, row.p99_ms, row.p99_9_ms))
    memory = f"{sum(row.rss_mb.values()):,.0f}"
    named = (row.scenario, row.case, row.transport, row.load, f"{row.per_s:,.0f}")
    return [*named, *latencies, cpu, memory, str(row.processes), ", ".join(failed + notes)]
