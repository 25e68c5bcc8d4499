"""`tessera log-level`: how much a node logs, while it runs."""

from __future__ import annotations

import click

from serving.commands.connection import Connection
from serving.commands.model import admin
from serving.commands.output import show_json
from serving.settings import LogLevel


@click.command("log-level")
@click.argument("level", type=click.Choice([level.value for level in LogLevel]), required=False)
@click.option("--as-settings", is_flag=True, help="Return to what the settings say.")
@admin
def log_level(connection: Connection, level: str | None, as_settings: bool) -> None:
    """Set how much all replicas of a node log. It stays so, also over restarts, until it is set again."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    if (level is None) != as_settings:
        raise click.UsageError("give LEVEL or --as-settings")
    connection.ask(admin_pb2_grpc.AdminStub, "SetLogLevel", admin_pb2.SetLogLevelRequest(level=level or ""))
    if connection.as_json:
        show_json({"level": level or ""})
    else:
        click.echo(f"log level: {level or 'as the settings say'}")
