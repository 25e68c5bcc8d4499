"""`tessera service ...`: what callers name, and what is bound to it."""

from __future__ import annotations

from typing import Any

import click

from serving.commands.connection import Connection
from serving.commands.model import admin, variant_text
from serving.commands.output import plain, show_json, show_table


@click.group()
def service() -> None:
    """Look at services, and choose the default one."""


@service.command("list")
@admin
def list_services(connection: Connection) -> None:
    """Show every service with its binding."""
    services = _services(connection)
    if connection.as_json:
        show_json(services)
        return
    rows = [
        (
            item["service"],
            item["revision"],
            _variants(item["variants"]),
            item["app"],
            "yes" if item["is_default"] else "",
        )
        for item in services
    ]
    show_table(("service", "revision", "variants", "app", "default"), rows)


@service.command()
@click.argument("name", metavar="SERVICE")
@admin
def show(connection: Connection, name: str) -> None:
    """Show one service, with the binding that a rollback would return to."""
    services = _services(connection)
    found = next((item for item in services if item["service"] == name), None)
    if found is None:
        known = ", ".join(item["service"] for item in services) or "none yet"
        raise click.ClickException(f"NOT_FOUND: no service {name}; known: {known}")
    if connection.as_json:
        show_json(found)
        return
    for key in ("service", "revision", "app", "app_parameters", "is_default"):
        click.echo(f"{key}: {found[key]}")
    click.echo(f"variants: {_variants(found['variants'])}")
    click.echo(f"previous: {_variants(found['previous']) or 'none'}")


@service.command()
@click.argument("name", metavar="SERVICE", default="")
@click.option("--none", "nothing", is_flag=True, help="Have no default service.")
@admin
def default(connection: Connection, name: str, nothing: bool) -> None:
    """Choose the service that answers requests which name none."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    if bool(name) == nothing:
        raise click.UsageError("give SERVICE or --none")
    request = admin_pb2.SetDefaultServiceRequest(service=name)
    connection.ask(admin_pb2_grpc.AdminStub, "SetDefaultService", request)
    if connection.as_json:
        show_json({"service": name})
    else:
        click.echo(f"default service: {name or 'none'}")


def _services(connection: Connection) -> list[dict[str, Any]]:
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = connection.ask(admin_pb2_grpc.AdminStub, "ListServices", admin_pb2.ListServicesRequest())
    return [plain(item) for item in reply.services]


def _variants(variants: list[dict[str, Any]]) -> str:
    return ", ".join(variant_text(item) for item in variants)
