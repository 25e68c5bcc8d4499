"""`python -m bench.micro [NAME...]`: what single steps of the request path cost, on this machine, now.

A benchmark is a public function without parameters in a file of this folder: it prepares, and returns what is timed.
The first line of its docstring says what it is and what it may cost.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

Step = Callable[[], object]

RESULTS = Path(__file__).parents[1] / "results" / "micro.json"


@dataclass(frozen=True)
class Figure:
    """Medians over the repeats, in nanoseconds per call."""

    name: str
    what: str
    wall_ns: float
    cpu_ns: float


def benchmarks() -> Iterator[tuple[str, Callable[[], Step]]]:
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"bench.micro.{path.stem}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            public = function.__module__ == module.__name__ and not name.startswith("_")
            if public and not inspect.signature(function).parameters:
                yield f"{path.stem}.{name}", function


def measure(name: str, prepare: Callable[[], Step], repeats: int, seconds: float) -> Figure:
    """`repeats` runs of about `seconds` each."""
    step = prepare()
    calls = _calls(step, seconds)
    runs = [_run(step, calls) for _ in range(repeats)]
    wall, cpu = (statistics.median(column) / calls for column in zip(*runs, strict=True))
    return Figure(name, (prepare.__doc__ or "").splitlines()[0], wall, cpu)


def _calls(step: Step, seconds: float) -> int:
    """How many calls take about `seconds`."""
    calls = 1
    while (took := _run(step, calls)[0]) < seconds * 1e8:
        calls *= 2
    return max(1, int(calls * seconds * 1e9 / took))


def _run(step: Step, calls: int) -> tuple[int, int]:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(calls):
        step()
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("names", nargs="*", help="only benchmarks whose name holds one of these")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each repeat")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    chosen = [item for item in benchmarks() if not given.names or any(name in item[0] for name in given.names)]
    figures = [measure(name, prepare, given.repeats, given.seconds) for name, prepare in chosen]
    table = Table("step", "wall µs", "CPU µs", "what")
    for figure in figures:
        table.add_row(figure.name, f"{figure.wall_ns / 1e3:.2f}", f"{figure.cpu_ns / 1e3:.2f}", figure.what)
    Console().print(table)
    machine = {"python": platform.python_version(), "machine": platform.machine(), "repeats": given.repeats}
    given.output.write_text(json.dumps({**machine, "figures": [asdict(figure) for figure in figures]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
