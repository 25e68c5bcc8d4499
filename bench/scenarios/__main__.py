"""`python -m bench.scenarios`: plays scenarios and keeps their figures."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.harness.figures import Row
from bench.harness.report import keep, table, write_tables
from bench.harness.stage import Stage
from bench.load.processes import ROOT
from serving.transport import Transport

RESULTS = ROOT / "bench" / "results" / "scenarios.json"
PAGE = ROOT / "docs" / "performance.md"
_USERS, _FEW_USERS = 1_000_000, 40_000
_QUICK_S = 0.3
_WIDTH = 160

Play = Callable[[Stage], Iterator[Row]]


def scenarios() -> dict[str, Play]:
    """By file name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return {name: importlib.import_module(f"bench.scenarios.{name}").play for name in names}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--transport", "kinds", type=click.Choice([kind.value for kind in Transport]), multiple=True,
    default=["native"], show_default=True, help="of all ports; given twice for both")  # fmt: skip
@click.option("--seconds", default=4.0, show_default=True, help="length of each measurement")
@click.option("--quick", is_flag=True, help="as short as can be, to see that everything runs; keeps nothing")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default=True)
@click.option("--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=PAGE, show_default=True,
    help="where the tables of all kept figures are written")  # fmt: skip
def main(names: Sequence[str], kinds: Sequence[str], seconds: float, quick: bool, output: Path, page: Path) -> None:
    """Real parties on this machine, as processes, under load. NAMES: some of the scenarios; all without any.

    Figures of scenarios that are not played again stay as they were. Everything shares this machine's cores, the load
    too, so compare CPU time per answer and ratios rather than rates.
    """
    known = scenarios()
    unknown = set(names) - known.keys()
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are {', '.join(known)}", param_hint="NAMES")
    stages = [Stage(Transport(kind), _QUICK_S if quick else seconds, _FEW_USERS if quick else _USERS) for kind in kinds]
    rows = list(_played({name: known[name] for name in names or known}, stages))
    console = Console()
    (console if console.is_terminal else Console(width=_WIDTH)).print(table(rows))
    if not quick:
        write_tables(page, keep(output, rows))


def _played(chosen: dict[str, Play], stages: Sequence[Stage]) -> Iterator[Row]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        for name, play in chosen.items():
            for stage in stages:
                progress.update(task, description=f"{name} on {stage.named}")
                for row in play(stage):
                    yield row
                    progress.update(task, description=f"{name} on {stage.named}, after {row.case}")


if __name__ == "__main__":
    main()
