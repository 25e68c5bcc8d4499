"""What a person sees of a run: a bar while it lasts, a table of its figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.load.plan import Plan
from bench.load.processes import OnProgress
from bench.load.results import LoadResult, Percentiles


@contextmanager
def bar(plan: Plan) -> Iterator[OnProgress]:
    """A bar on standard error; hands out what is to be told of progress."""
    columns = (TextColumn("load"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[so_far]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("load", total=plan.warmup_s + plan.duration_s, so_far="")
        begun = time.monotonic()

        def follow(ok: int, failed: int) -> None:
            so_far = f"{ok:,} right, {failed:,} failed" if ok or failed else "warming up"
            progress.update(task, completed=time.monotonic() - begun, so_far=so_far)

        yield follow


def table(result: LoadResult) -> Table:
    """Latencies in milliseconds."""
    asked = f", {result.asked_per_s:,.0f}/s asked" if result.asked_per_s else ""
    answered = f"{result.ok_per_s:,.0f} right answers/s over {result.duration_s:g} s"
    shown = Table("ms", title=f"{result.mode} loop{asked}: {answered}")
    for name in ("calls", "p50", "p90", "p99", "p99.9", "max"):
        shown.add_column(name, justify="right")
    for name, count, row in (
        ("right", f"{result.calls - result.failed:,}", result.latency_ms),
        ("failed", f"{result.failed:,}", result.failed_latency_ms),
        ("lateness", "", result.lateness_ms),
    ):
        if row is not None:
            shown.add_row(name, count, *_cells(row))
    if result.failed:
        shown.caption = ", ".join(f"{name} {count:,}" for name, count in result.outcomes.items())
    return shown


def _cells(row: Percentiles) -> list[str]:
    return [f"{value:.3f}" for value in (row.p50, row.p90, row.p99, row.p99_9, row.max)]
