"""`tessera warmup`: fetch the partials of the most active users before they are asked about."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.commands.connection import Ask, Connection
from serving.commands.model import admin
from serving.commands.output import show_json

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from serving.warmup import Plan, Prefetch, Progress, Report

_DAY_S = 86_400
_SHARE = click.FloatRange(min=0, max=1, min_open=True)
_PATH = click.Path(dir_okay=False, path_type=Path)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """The options."""

    service: str
    model: str
    file: Path | None
    id_column: str
    count_column: str
    share: float
    days: int
    include_today: bool
    users_per_s: float
    batch: int
    cursor: Path | None
    dry_run: bool


@click.command()
@click.argument("service", default="")
@click.option("--model", metavar="MODEL:VERSION", default="", help="Warm a loaded version instead of a service.")
@click.option("--file", type=_PATH, help="CSV or Parquet file of users; without it, the service's own counts.")
@click.option("--id-column", default="id", show_default=True, help="Of the file.")
@click.option("--count-column", default="count", show_default=True, help="Of the file, if it has one: the order.")
@click.option("--share", type=_SHARE, default=0.2, show_default=True, help="Most active share of the users.")
@click.option("--days", type=click.IntRange(1, 30), default=7, show_default=True, help="Whole UTC days to count.")
@click.option("--include-today", is_flag=True, help="Count today too; an interrupted run may then start anew.")
@click.option("--users-per-s", type=click.FloatRange(min=0, min_open=True), default=500.0, show_default=True)
@click.option("--batch", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Users in one call.")
@click.option("--cursor", type=_PATH, help="File that remembers how far it came, to go on after an interruption.")
@click.option("--dry-run", is_flag=True, help="Only look what is there; ask no host.")
@admin
def warmup(connection: Connection, **options: Any) -> None:
    """Warm the remote caches for the most active users of SERVICE.

    Hosts must let this party ask for the purpose warmup. When one refuses, or its budget is spent, it stops and says
    so.
    """
    wanted = Wanted(**options)
    if bool(wanted.service) == bool(wanted.model):
        raise click.UsageError("give SERVICE or --model")
    if wanted.model and not wanted.file:
        raise click.UsageError("activity is counted by service: give --file with --model")
    from tessera.v1 import admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    done = connection.converse(admin_pb2_grpc.AdminStub, lambda ask: _warm(ask, wanted, connection.as_json))
    _show(done, wanted, connection.as_json)
    if done.progress.stopped:
        raise click.ClickException(f"stopped after {done.progress.done} of {done.planned}: {done.progress.stopped}")


async def _warm(ask: Ask, wanted: Wanted, quiet: bool) -> Report:
    from serving import warmup  # noqa: PLC0415

    plan = _from_file(wanted) if wanted.file else await _from_counts(ask, wanted)
    cursor = None if wanted.dry_run else wanted.cursor
    begun = _read(cursor)
    pace = warmup.Pace(wanted.users_per_s, wanted.batch)
    with _bar(quiet) as bar:
        task = bar.add_task("warm-up", total=len(plan.user_ids))

        async def save(progress: Progress) -> None:
            bar.update(task, completed=progress.done)
            if cursor is not None:
                _write(cursor, progress)

        progress = await warmup.run(plan, _prefetch(ask, wanted), pace, begun, save)
    return warmup.report(plan, progress, wanted.dry_run)


def _prefetch(ask: Ask, wanted: Wanted) -> Prefetch:
    from serving.prefetch import Prefetched, PrefetchOutcome  # noqa: PLC0415
    from tessera.v1 import admin_pb2  # noqa: PLC0415

    model, _, version = wanted.model.partition(":")

    async def prefetch(user_ids: Sequence[str]) -> Prefetched:
        request = admin_pb2.PrefetchRequest(
            service=wanted.service, model=model, version=version, user_ids=user_ids, dry_run=wanted.dry_run
        )
        reply = await ask("Prefetch", request)
        return Prefetched([PrefetchOutcome(outcome) for outcome in reply.outcomes], reply.reason)

    return prefetch


async def _from_counts(ask: Ask, wanted: Wanted) -> Plan:
    from serving.activity import Active  # noqa: PLC0415
    from serving.warmup import most_active  # noqa: PLC0415
    from tessera.v1 import admin_pb2  # noqa: PLC0415

    async def top(days: tuple[int, int], offset: int, limit: int) -> Active:
        request = admin_pb2.ActivityRequest(
            service=wanted.service, first_day=days[0], last_day=days[1], offset=offset, limit=limit
        )
        reply = await ask("Activity", request)
        return Active(reply.user_ids, reply.counts, reply.total_users, reply.total_count)

    last = int(time.time()) // _DAY_S - (0 if wanted.include_today else 1)
    return await most_active(top, (last - wanted.days + 1, last), wanted.share)


def _from_file(wanted: Wanted) -> Plan:
    import polars  # noqa: PLC0415

    from serving.warmup import Plan, top_share  # noqa: PLC0415

    file = wanted.file
    if file is None:
        raise click.UsageError("no file is given")
    try:
        # Ids of a CSV keep their leading zeros.
        is_parquet = file.suffix == ".parquet"
        table = polars.read_parquet(file) if is_parquet else polars.read_csv(file, infer_schema=False)
        table = table.with_columns(polars.col(wanted.id_column).cast(polars.String)).drop_nulls(wanted.id_column)
        counted = wanted.count_column in table.columns
        if counted:
            table = table.with_columns(polars.col(wanted.count_column).cast(polars.Int64))
            table = table.sort(wanted.count_column, wanted.id_column, descending=[True, False])
    except (OSError, polars.exceptions.PolarsError) as error:
        raise click.ClickException(f"{file}: cannot be read as users: {error}") from None
    table = table.unique(wanted.id_column, keep="first", maintain_order=True)
    planned = top_share(table.height, wanted.share)
    counts = table[wanted.count_column].to_list() if counted else []
    return Plan(table[wanted.id_column].to_list()[:planned], counts[:planned], sum(counts))


def _read(cursor: Path | None) -> Progress | None:
    import msgspec  # noqa: PLC0415

    from serving.warmup import Progress  # noqa: PLC0415

    if cursor is None or not cursor.exists():
        return None
    try:
        return msgspec.json.decode(cursor.read_bytes(), type=Progress)
    except msgspec.MsgspecError:
        raise click.ClickException(f"{cursor} is no cursor of a warm-up; remove it to start anew") from None


def _write(cursor: Path, progress: Progress) -> None:
    """Whole or not at all."""
    import msgspec  # noqa: PLC0415

    draft = cursor.with_name(f"{cursor.name}.draft")
    draft.write_bytes(msgspec.json.encode(progress))
    draft.replace(cursor)


def _bar(quiet: bool) -> Bar:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal)


def _show(done: Report, wanted: Wanted, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415

    progress = done.progress
    if as_json:
        shown = {key: value for key, value in dataclasses.asdict(done).items() if key != "progress"}
        show_json({**shown, **msgspec.to_builtins(progress), "dry_run": wanted.dry_run})
        return
    what = "would be warmed" if wanted.dry_run else f"planned, {progress.done} done"
    click.echo(f"{done.planned} users {what}")
    names = ("cached", "fetched", "not_found", "missing", "failed", "refused")
    click.echo(", ".join(f"{getattr(progress, name)} {name.replace('_', ' ')}" for name in names))
    click.echo(f"coverage: {done.coverage_before:.1%} before, {done.coverage_after:.1%} after")
    if done.expected_hit_share is not None and done.hit_share_before is not None:
        click.echo(
            f"calls without a remote call: {done.hit_share_before:.1%} before, {done.expected_hit_share:.1%} after"
        )
