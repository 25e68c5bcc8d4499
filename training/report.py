"""Plans and outcomes for people and, as JSON, for programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from training.graph import Graph
from training.store import Metric, Status


def last_values(metrics: Iterable[Metric]) -> dict[str, dict[str, float]]:
    """The last point of every metric, by task and name."""
    last: dict[str, dict[str, float]] = {}
    for metric in metrics:
        last.setdefault(metric.task, {})[metric.name] = metric.value
    return last


def outcome_json(folder: Path, status: Status, metrics: Iterable[Metric]) -> str:
    document = {**msgspec.to_builtins(status), "folder": str(folder), "metrics": last_values(metrics)}
    return msgspec.json.encode(document).decode()


def print_outcome(folder: Path, status: Status, metrics: Iterable[Metric], registry: Path | None = None) -> None:
    console = Console(soft_wrap=True)
    table = Table("task", "metric", "value", title=f"job {status.job} at party {status.party}: {status.state.value}")
    for task, values in last_values(metrics).items():
        for name, value in values.items():
            table.add_row(task, name, f"{value:.6g}")
    console.print(table)
    if status.reason:
        console.print(f"reason: {status.reason}", markup=False)
    console.print(f"folder: {folder}", markup=False, highlight=False)
    if registry is not None:
        console.print(f"registry: {registry}", markup=False, highlight=False)


def plan_json(graph: Graph) -> str:
    document = {"job": graph.job.job, "digest": graph.job.digest, "tasks": [*_planned(graph)]}
    return msgspec.json.encode(document).decode()


def print_plan(graph: Graph) -> None:
    table = Table("task", "module", "inputs", "runs at", title=f"job {graph.job.job}, digest {graph.job.digest[:12]}")
    for row in _planned(graph):
        inputs = ", ".join(f"{port} = {source}" for port, source in row["inputs"].items())
        table.add_row(row["task"], row["module"], inputs, ", ".join(row["parties"]))
    Console(soft_wrap=True).print(table)


def _planned(graph: Graph) -> Iterable[dict[str, Any]]:
    for task in graph.tasks:
        yield {
            "task": task.name,
            "module": task.module,
            "inputs": {port: ".".join(source) for port, source in task.inputs.items()},
            "parties": [party for party in graph.job.parties if task.concerns(graph.job.role(party))],
        }
