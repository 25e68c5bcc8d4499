"""The command line of the comparison."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from bench.load.processes import ROOT
from bench.transport import report as reports
from bench.transport.certificates import Certificate, make_certificate
from bench.transport.contenders import Contender, Kind, anywhere, apart, started, why_not
from bench.transport.flood import flood
from bench.transport.idle import allow_connections, idle_cost
from bench.transport.rounds import SHAPES, Times, cells, in_turns, verify

RESULTS = ROOT / "bench" / "results" / "transport.json"
_IDLE = 1_000
_QUICK_S = 0.2
_QUICK_IDLE = 100
_WIDTH = 120  # of tables that go into a file


@click.command()
@click.option("--server", "names", type=click.Choice([kind.name.lower() for kind in Kind]), multiple=True,
    help="only these; several times for several")  # fmt: skip
@click.option("--rounds", default=3, show_default=True, help="the medians of these are reported")
@click.option("--seconds", default=1.0, show_default=True, help="length of each measurement")
@click.option("--quick", is_flag=True, help="one short round of one shape, to see that everything runs")
@click.option("--unpinned", is_flag=True, help="let servers and load run on all cores, not the servers on one of them")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default=True)
def main(names: Sequence[str], rounds: int, seconds: float, quick: bool, unpinned: bool, output: Path) -> None:
    """Echo of 300 bytes by several gRPC servers in turn, in one run, each in a process of its own on one core.

    (c, m) are connections and streams on each. Compare figures of one run only; on a busy machine the ratios hold
    better than the rates, and CPU time better than both.
    """
    kinds = [Kind[name.upper()] for name in names] or list(Kind)
    reasons = {kind: why_not(kind) for kind in kinds}
    skipped = {kind.value: reason for kind, reason in reasons.items() if reason is not None}
    wanted = [kind for kind in kinds if reasons[kind] is None]
    if not wanted:
        raise click.ClickException(f"none of these servers runs here: {skipped}")
    rounds, seconds = (1, _QUICK_S) if quick else (rounds, seconds)
    allow_connections(_IDLE)
    with tempfile.TemporaryDirectory(prefix="bench-transport-") as folder, contextlib.ExitStack() as stack:
        certificate = make_certificate(Path(folder))
        placement = anywhere() if unpinned else apart()
        contenders = [stack.enter_context(started(kind, certificate, placement)) for kind in wanted]
        report = _run(contenders, certificate, rounds, seconds, skipped)
    console = Console()
    reports.show(report, console if console.is_terminal else Console(width=_WIDTH))
    reports.write(report, output)


def _run(
    contenders: Sequence[Contender], certificate: Certificate, rounds: int, seconds: float, skipped: dict[str, str]
) -> reports.Report:
    quick = seconds <= _QUICK_S
    wanted = cells(SHAPES[-1:] if quick else SHAPES)
    for contender in contenders:
        verify(contender, certificate)
    idle = [idle_cost(contender, _QUICK_IDLE if quick else _IDLE, certificate) for contender in contenders]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(wanted) * len(contenders))
        times = Times(seconds, seconds / 4)
        figures = list(in_turns(contenders, wanted, rounds, times, lambda: progress.advance(task)))
    for contender in contenders:
        verify(contender, certificate)
    beside = [flood(contender, seconds * 2) for contender in contenders]
    return reports.Report(
        cores=f"servers {sorted(contenders[0].placement.server)}, load {sorted(contenders[0].placement.load)}",
        rounds=rounds,
        seconds=seconds,
        skipped=skipped,
        figures=figures,
        idle=idle,
        flood=[figure for figure in beside if figure is not None],
        goals=reports.goals(figures),
    )


if __name__ == "__main__":
    main()
