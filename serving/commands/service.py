"""`tessera service ...`: what callers name, and what is bound to it."""

from __future__ import annotations

from typing import Any

import click

from serving.commands.connection import Connection
from serving.commands.model import admin, current_revision, variant_text
from serving.commands.output import plain, show_json, show_table

_COLUMNS = ("variant", "answers", "scores at 5 25 50 75 95 %", "outcomes 1/0", "AUC", "KS", "mean ms", "p99 ms")


@click.group()
def service() -> None:
    """Look at services, choose the default one, remove those of before."""


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
    """Show one service, with the binding that a rollback would return to, and what its variants have answered."""
    services = _services(connection)
    found = next((item for item in services if item["service"] == name), None)
    if found is None:
        known = ", ".join(item["service"] for item in services) or "none yet"
        raise click.ClickException(f"NOT_FOUND: no service {name}; known: {known}")
    figures = _figures(connection, name)
    if connection.as_json:
        show_json({**found, "figures": figures})
        return
    for key in ("service", "revision", "app", "app_parameters", "is_default"):
        click.echo(f"{key}: {found[key]}")
    click.echo(f"variants: {_variants(found['variants'])}")
    if found["shadows"]:
        click.echo(f"shadows: {_variants(found['shadows'])}")
    click.echo(f"previous: {_variants(found['previous']) or 'none'}")
    click.echo(f"unmanaged: {', '.join(found['unmanaged']) or 'none'}")
    if figures:
        show_table(_COLUMNS, [_figure_row(one) for one in figures])


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


@service.command()
@click.argument("name", metavar="SERVICE")
@click.option("--revision", type=click.IntRange(min=1), help="The revision you saw; read from the node if not given.")
@admin
def remove(connection: Connection, name: str, revision: int | None) -> None:
    """Forget a service that nobody calls any more. Its versions stay loaded."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    seen = current_revision(connection, name) if revision is None else revision
    request = admin_pb2.RemoveServiceRequest(service=name, revision=seen)
    removed = connection.ask(admin_pb2_grpc.AdminStub, "RemoveService", request).removed
    if connection.as_json:
        show_json({"service": name, "removed": removed})
    else:
        click.echo(f"{name} is removed" if removed else f"there is no service {name}")


def _services(connection: Connection) -> list[dict[str, Any]]:
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = connection.ask(admin_pb2_grpc.AdminStub, "ListServices", admin_pb2.ListServicesRequest())
    return [plain(item) for item in reply.services]


def _figures(connection: Connection, name: str) -> list[dict[str, Any]]:
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = connection.ask(admin_pb2_grpc.AdminStub, "Figures", admin_pb2.FiguresRequest(service=name))
    optional = ("auc", "ks", "seconds_mean", "seconds_p50", "seconds_p99", "moved")
    return [
        {**plain(one), **{field: None for field in optional if not one.HasField(field)}}  # absent is not 0
        for one in reply.variants
    ]


def _figure_row(one: dict[str, Any]) -> tuple[object, ...]:
    def shown(value: float | None, form: str = ".4g") -> str:
        return "" if value is None else format(value, form)

    milliseconds = [shown(one[key] and 1_000 * one[key], ".3g") for key in ("seconds_mean", "seconds_p99")]
    scores = " ".join(shown(value, ".3g") for value in one["score_quantiles"])
    name = f"{one['variant']} (shadow)" if one["shadow"] else one["variant"]
    outcomes = f"{one['positives']}/{one['negatives']}"
    return (name, one["answers"], scores, outcomes, shown(one["auc"]), shown(one["ks"]), *milliseconds)


def _variants(variants: list[dict[str, Any]]) -> str:
    return ", ".join(variant_text(item) for item in variants)
