"""`tessera app ...`: load, unload and list the apps of one party, at its node."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from serving.commands.connection import Connection
from serving.commands.model import admin
from serving.commands.output import plain, show_json, show_table


@click.group()
def app() -> None:
    """Load, unload and list apps: processing around models."""


@app.command()
@click.argument("name", metavar="APP")
@click.argument("version")
@admin
def load(connection: Connection, name: str, version: str) -> None:
    """Load an app from apps.root on every replica. Nothing goes online."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    request = admin_pb2.LoadAppRequest(name=name, version=version)
    reply = plain(connection.ask(admin_pb2_grpc.AdminStub, "LoadApp", request))
    for replica in reply["replicas"]:
        replica["state"] = replica["state"].removeprefix("LOAD_STATE_").lower()
    if connection.as_json:
        show_json(reply)
    else:
        show_table(("replica", "state", "reason"), [(r["replica"], r["state"], r["reason"]) for r in reply["replicas"]])
    failed = sorted(replica["replica"] for replica in reply["replicas"] if replica["state"] == "failed")
    if failed:
        raise click.ClickException(f"{name} {version} is not loaded at {', '.join(failed)}")


@app.command()
@click.argument("name", metavar="APP")
@click.argument("version")
@admin
def unload(connection: Connection, name: str, version: str) -> None:
    """Let go of an app that no service uses."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    connection.ask(admin_pb2_grpc.AdminStub, "UnloadApp", admin_pb2.UnloadAppRequest(name=name, version=version))
    if connection.as_json:
        show_json({})
    else:
        click.echo(f"{name} {version} is unloaded")


@app.command("list")
@admin
def list_apps(connection: Connection) -> None:
    """Show the apps that are built in or loaded, and who uses them."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = plain(connection.ask(admin_pb2_grpc.AdminStub, "ListApps", admin_pb2.ListAppsRequest()))
    if connection.as_json:
        show_json(reply)
        return
    rows = [
        (
            *(item[key] for key in ("name", "version", "state")),
            _time(item["since_ms"]),
            item["digest"][:12],
            ", ".join(item["used_by"]),
            item["reason"],
        )
        for item in reply["apps"]
    ]
    show_table(("app", "version", "state", "since (UTC)", "digest", "used by", "reason"), rows)


def _time(since_ms: int) -> str:
    return datetime.fromtimestamp(since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if since_ms else ""
