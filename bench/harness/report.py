"""Figures of all scenarios: kept in a file, shown as a table, written into the documentation with their profiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from rich.table import Table

from bench.harness.figures import Row
from bench.harness.profile import HostCalls

BEGIN, END = "<!-- scenarios: written by make bench -->", "<!-- end of scenarios -->"
PROFILES_BEGIN, PROFILES_END = "<!-- profiles: written by make bench -->", "<!-- end of profiles -->"
_HEADS = ("scenario", "case", "transport", "load", "answers/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs per answer",
    "MB", "processes", "notes")  # fmt: skip
_PROFILE_HEADS = ("scenario", "case", "transport", "load", "calls (rows) a round", "µs in the guest",
    "its CPU µs per answer", "µs a round", "calls to hosts")  # fmt: skip
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


def write_tables(page: Path, rows: Sequence[Row]) -> None:
    """Replace what stands between each pair of marks."""
    text = _between(page.read_text(), (BEGIN, END), _lines(_HEADS, map(_cells, rows)))
    profiles = _lines(_PROFILE_HEADS, _profile_cells(rows))
    page.write_text(_between(text, (PROFILES_BEGIN, PROFILES_END), profiles))


def _between(text: str, marks: tuple[str, str], lines: Iterable[str]) -> str:
    """Marks that are missing come at the end."""
    before, _, rest = text.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return "\n".join([before + marks[0], *lines, marks[1]]) + after


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    cpu = _largest_first(row.cpu_us)
    failed = [f"{name} {count:,}" for name, count in row.outcomes.items() if name != "OK"]
    notes = [f"{name} {value:g}" for name, value in row.notes.items()]
    latencies = (f"{value:,.2f}" for value in (row.p50_ms, row.p99_ms, row.p99_9_ms))
    memory = f"{sum(row.rss_mb.values()):,.0f}"
    named = (row.scenario, row.case, row.transport, row.load, f"{row.per_s:,.0f}")
    return [*named, *latencies, cpu, memory, str(row.processes), ", ".join(failed + notes)]


def _profile_cells(rows: Sequence[Row]) -> Iterator[list[str]]:
    """Once for loads at the same time."""
    for (scenario, transport, found), group in groupby(rows, lambda row: (row.scenario, row.transport, row.profile)):
        if found is not None:
            same = list(group)
            named = [scenario, "; ".join(row.case for row in same), transport, "; ".join(row.load for row in same)]
            rounds = f"{found.calls_per_round:,.1f} ({found.rows_per_round:,.1f})" if found.rows_per_round else ""
            stages = ", ".join(f"{stage} {mean:,.0f}" for stage, mean in found.round_us.items())
            hosts = "; ".join(_host_cell(party, one) for party, one in found.hosts.items())
            yield [*named, rounds, f"{found.call_us:,.0f}", _largest_first(found.work_us), stages, hosts]


def _host_cell(party: str, calls: HostCalls) -> str:
    there = "" if calls.host_us is None else f" ({calls.host_us:,.0f} there)"
    return f"{party}: {calls.users:,.1f} users, waits {calls.wait_us:,.0f}, takes {calls.call_us:,.0f}{there}"


def _largest_first(times_us: Mapping[str, float]) -> str:
    times = sorted(times_us.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {used:,.0f}" for name, used in times if used >= _SMALL_US)
