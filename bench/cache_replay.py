"""How many requests need no remote call? A day of made-up traffic through the real cache levels.

`python -m bench.cache_replay` varies how uneven users are (Zipf), how often they come again, how long L3 keeps their
partials, and how many users the nightly warm-up fetches; it writes the shares and a plot to bench/results/.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.replay.day import Habits
from bench.replay.play import Levels, Point, replay
from bench.replay.plot import REPORTED, PlotError, crossings, draw

RESULTS = Path(__file__).parent / "results"
_HOUR_S = 3_600.0
_WIDTH = 110  # of a table that goes into a file


def grid(users: int, requests: int, axes: Sequence[Sequence[float]]) -> list[tuple[Habits, Levels]]:
    """`axes`: Zipf exponents, revisits, hours in L3, shares warmed up."""
    return [
        (Habits(users, requests, zipf, revisits), Levels(hours * _HOUR_S, share))
        for zipf, revisits, hours, share in itertools.product(*axes)
    ]


def play(assumed: tuple[Habits, Levels]) -> Point:
    return asyncio.run(replay(*assumed))


@click.command(help=__doc__)
@click.option("--users", default=100_000, show_default=True)
@click.option("--requests", default=30_000, show_default=True, help="of one day")
@click.option("--zipf", type=float, multiple=True, default=(0.2, 0.5, 0.8, 1.1), show_default=True)
@click.option("--revisits", type=float, multiple=True, default=(0.0, 0.2, 1.0), show_default=True)
@click.option("--hours", type=float, multiple=True, default=(1.0, 6.0, 24.0), show_default=True, help="kept in L3")
@click.option("--warmup", type=float, multiple=True, default=(0.0, 0.05, 0.1, 0.2, 0.4), show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default=True)
def main(users: int, requests: int, processes: int, output: Path, **axes: tuple[float, ...]) -> None:
    wanted = grid(users, requests, [axes[name] for name in ("zipf", "revisits", "hours", "warmup")])
    console = Console(stderr=True)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        points = list(track(pool.map(play, wanted), "replaying", len(wanted), console=console, transient=True))
    output.mkdir(parents=True, exist_ok=True)
    (output / "cache_replay.json").write_bytes(msgspec.json.encode(points) + b"\n")
    try:
        draw(points, output / "cache_replay.png")
    except PlotError as error:
        console.print(str(error), style="yellow")
    Console(width=None if Console().is_terminal else _WIDTH).print(table(points))
    for (often, ttl_s, zipf), share in crossings(points):
        click.echo(
            f"{REPORTED:.0%} without a remote call: Zipf {zipf:g}, {often:g} revisits, L3 for {ttl_s / _HOUR_S:g} h, "
            f"{share:.1%} of users warmed up"
        )


def table(points: Sequence[Point]) -> Table:
    heads = ("Zipf", "revisits", "L3 hours", "warmed up", "L1", "L2", "L3", "no remote call", "calls at night")
    shown = Table(*heads)
    for point in points:
        habits, levels = point.habits, point.levels
        assumed = (f"{habits.zipf:g}", f"{habits.revisits:g}", f"{levels.shared_ttl_s / _HOUR_S:g}")
        shares = (point.l1, point.l2, point.l3, point.not_asked)
        told = (f"{share:.1%}" for share in shares)
        shown.add_row(*assumed, f"{levels.warmup_share:.0%}", *told, f"{point.night_calls:,}")
    return shown


if __name__ == "__main__":
    main()
