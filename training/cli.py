"""`tessera train`: run a job on this party, check a job, look at one that ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from training.graph import Graph

FILE = click.Path(dir_okay=False, path_type=Path)
MAX_WAIT_S = 7 * 86_400.0


@click.group()
def train() -> None:
    """Train and publish federated models together with other parties."""


@train.command()
@click.argument("job", type=FILE)
@click.option("--party", type=FILE, required=True, help="Settings of this party.")
@click.option("--job", "job_id", default="", help="Id of the job, instead of the file's; the same on every party.")
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0, min_open=True, max=MAX_WAIT_S),
    help="How long to wait for the other parties to start, instead of the settings' meet_timeout_s.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, without progress.")
def run(job: Path, party: Path, job_id: str, wait_s: float | None, as_json: bool) -> None:
    """Run the job file JOB on this party; every party of the job runs the same file."""
    import msgspec  # noqa: PLC0415

    from training import node  # noqa: PLC0415 - keeps `tessera --help` quick
    from training import party as party_settings  # noqa: PLC0415
    from training.dsl import JobError  # noqa: PLC0415
    from training.progress import Bars  # noqa: PLC0415
    from training.runner import RunError  # noqa: PLC0415
    from training.store import StoreError  # noqa: PLC0415

    try:
        settings = party_settings.load(party, os.environ)
    except party_settings.PartyError as error:
        _fail(error)
    if wait_s is not None:
        settings = msgspec.structs.replace(settings, meet_timeout_s=wait_s)
    graph = _graph(job, job_id)
    folder = node.job_folder(settings, graph.job.job)
    own = sum(task.concerns(graph.job.role(settings.party)) for task in graph.tasks)
    try:
        with Bars(own, visible=not as_json) as bars:
            node.run(graph, settings, bars)
            bars.done()
    except (RunError, StoreError, JobError) as error:
        _fail(error, f" (details: {folder / 'log'})" if isinstance(error, RunError) else "")
    except KeyboardInterrupt:
        _fail(f"job {graph.job.job} was stopped; the other parties know")
    _report(folder, as_json, settings.registry)


@train.command()
@click.argument("job", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(job: Path, as_json: bool) -> None:
    """Check the job file JOB and show what would run where."""
    from training import report  # noqa: PLC0415

    graph = _graph(job)
    click.echo(report.plan_json(graph)) if as_json else report.print_plan(graph)


@train.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
def show(folder: Path, as_json: bool) -> None:
    """Show the state and the metrics of the job in FOLDER."""
    from training.store import StoreError  # noqa: PLC0415

    try:
        _report(folder, as_json)
    except StoreError as error:
        _fail(error)


def _graph(path: Path, job_id: str = "") -> Graph:
    """The checked job, or the end."""
    from training import dsl, graph  # noqa: PLC0415

    try:
        return graph.check(*dsl.read(path, job_id))
    except dsl.JobError as error:
        _fail(error)


def _report(folder: Path, as_json: bool, registry: Path | None = None) -> None:
    from training import report, store  # noqa: PLC0415

    status, metrics = store.settled_status(folder), store.read_metrics(folder)
    if as_json:
        click.echo(report.outcome_json(folder, status, metrics))
    else:
        report.print_outcome(folder, status, metrics, registry)


def _fail(reason: object, more: str = "") -> NoReturn:
    for line in str(reason).splitlines():
        click.echo(f"tessera: {line}{more}", err=True)
    sys.exit(1)
