"""`tessera model ...`: load, bind and unload versions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from serving.commands.connection import Connection, connected
from serving.commands.output import plain, show_json, show_table

admin = connected("admin", "127.0.0.1:8702")

_VARIANT = re.compile(r"(?P<model>[^:=]+):(?P<version>[^=]+?)(=(?P<percent>\d+(\.\d+)?))?")


_SILENT_S = 2.5
"""Replicas report every second."""
_COLUMNS = ("model", "version", "role", "format", "state", "since (UTC)", "replicas", "binding", "held by", "reason")
_SHADOW_HELP = "Run this version too, for so many of the users, without answering; may be repeated."


@click.group()
def model() -> None:
    """Load versions and decide which one answers."""


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("version")
@admin
def load(connection: Connection, name: str, version: str) -> None:
    """Load a version at every party of the model. Nothing goes online."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    request = admin_pb2.PublishLoadRequest(model=name, version=version)
    reply = plain(connection.ask(admin_pb2_grpc.AdminStub, "PublishLoad", request))
    for replica in reply["replicas"]:
        replica["state"] = replica["state"].removeprefix("LOAD_STATE_").lower()
    if connection.as_json:
        show_json(reply)
    else:
        rows = [(item["party"], item["replica"], item["state"], item["reason"]) for item in reply["replicas"]]
        show_table(("party", "replica", "state", "reason"), rows)
    failed = sorted({item["party"] for item in reply["replicas"] if item["state"] == "failed"})
    if failed:
        raise click.ClickException(f"{name} {version} is not loaded at {', '.join(failed)}")


@model.command()
@click.argument("service")
@click.argument("variants", metavar="MODEL:VERSION[=PERCENT]...", nargs=-1, required=True)
@click.option("--shadow", "shadows", multiple=True, metavar="MODEL:VERSION[=PERCENT]", help=_SHADOW_HELP)
@click.option("--app", default="", help="App around the model; its own, else passthrough, when not given.")
@click.option("--app-parameters", default="", metavar="JSON", help="Parameters of the app.")
@click.option("--revision", type=click.IntRange(min=0), help="The revision you saw; read from the node if not given.")
@click.option(
    "--accept-unmanaged", multiple=True, metavar="PARTY", help="A host that speaks FATE's protocol, shown by a probe."
)
@click.option("--probe-user", "probe_user_id", default="", metavar="ID", help="A user that unmanaged hosts know.")
@admin
def online(
    connection: Connection,
    service: str,
    variants: tuple[str, ...],
    shadows: tuple[str, ...],
    revision: int | None,
    **rest: Any,
) -> None:
    """Bind versions to a service; the next request uses them."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    weights = [admin_pb2.VariantWeight(**variant) for variant in weighted(variants)]
    request = admin_pb2.PublishOnlineRequest(
        service=service,
        revision=current_revision(connection, service) if revision is None else revision,
        variants=weights,
        shadows=[admin_pb2.VariantWeight(**_share(shadow)) for shadow in shadows],
        **rest,
    )
    show_binding(connection, connection.ask(admin_pb2_grpc.AdminStub, "PublishOnline", request))


@model.command()
@click.argument("service")
@click.option("--revision", type=click.IntRange(min=0), help="The revision you saw; read from the node if not given.")
@admin
def rollback(connection: Connection, service: str, revision: int | None) -> None:
    """Return a service to its previous binding, one step."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    seen = current_revision(connection, service) if revision is None else revision
    request = admin_pb2.RollbackRequest(service=service, revision=seen)
    show_binding(connection, connection.ask(admin_pb2_grpc.AdminStub, "Rollback", request))


@model.command()
@click.argument("name", metavar="MODEL")
@click.argument("version")
@click.option("--force", is_flag=True, help="Even while a service or another party uses it.")
@admin
def unload(connection: Connection, name: str, version: str, force: bool) -> None:
    """Take a version out of memory at this party."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    request = admin_pb2.UnloadRequest(model=name, version=version, force=force)
    connection.ask(admin_pb2_grpc.AdminStub, "Unload", request)
    if connection.as_json:
        show_json({})
    else:
        click.echo(f"{name} {version} is unloaded")


@model.command("list")
@admin
def list_models(connection: Connection) -> None:
    """Show the versions that this party holds, at the replica that answers and, counted, at all."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = plain(connection.ask(admin_pb2_grpc.AdminStub, "ListModels", admin_pb2.ListModelsRequest()))
    if connection.as_json:
        show_json(reply)
        return
    show_table(_COLUMNS, map(_row, reply["models"]))


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    since = datetime.fromtimestamp(item["since_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    others = [f"{one['replica']}: {one['reason']}" for one in item["replicas"][1:] if one["reason"]]
    return (
        *(item[key] for key in ("model", "version", "role", "format", "state")),
        since if item["since_ms"] else "",
        _at_replicas(item["replicas"]),
        item["binding_digest"][:12],
        ", ".join(item["held_by"]),
        "; ".join([item["reason"], *others] if item["reason"] else others),
    )


def _at_replicas(states: list[dict[str, Any]]) -> str:
    """How many have it, and which others do not, or have been silent for longer than they should."""
    ready = sum(one["state"] == "READY" for one in states)
    notes = []
    for one in states:
        silent_s = one["age_ms"] / 1_000
        silence = f" ({silent_s:.0f} s ago)" if silent_s > _SILENT_S else ""
        if silence or one["state"] != "READY":
            notes.append(f"{one['replica']} {one['state']}{silence}")
    return "; ".join([f"{ready} of {len(states)} READY", *notes])


def weighted(variants: tuple[str, ...]) -> list[dict[str, Any]]:
    """Model, version and weight in basis points of each `MODEL:VERSION[=PERCENT]`. Raises UsageError."""
    for text in variants:
        if len(variants) > 1 and "=" not in text:
            raise click.UsageError(f"{text!r} has no weight; give each of several versions one, as in {text}=50")
    found = [_share(text) for text in variants]
    total = sum(item["weight"] for item in found)
    if total != 10_000:
        raise click.UsageError(f"the weights sum to {total / 100:g} %, not 100 %")
    return found


def _share(text: str) -> dict[str, Any]:
    """Of one `MODEL:VERSION[=PERCENT]`; all when it names no percentage."""
    match = _VARIANT.fullmatch(text)
    if match is None:
        raise click.UsageError(f"{text!r} is not MODEL:VERSION or MODEL:VERSION=PERCENT")
    points = Decimal(match["percent"] or "100") * 100
    if points != int(points):
        raise click.UsageError(f"{text!r}: a weight has at most two decimals")
    return {"model": match["model"], "version": match["version"], "weight": int(points)}


def current_revision(connection: Connection, service: str) -> int:
    """0 for a service that the node does not know yet."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = connection.ask(admin_pb2_grpc.AdminStub, "ListServices", admin_pb2.ListServicesRequest())
    return next((item.revision for item in reply.services if item.service == service), 0)


def show_binding(connection: Connection, reply: Any) -> None:
    binding = plain(reply)
    if connection.as_json:
        show_json(binding)
        return
    variants = ", ".join(variant_text(item) for item in binding["variants"])
    shadows = "".join(f", shadow {variant_text(item)}" for item in binding["shadows"])
    click.echo(f"{binding['service']} revision {binding['revision']}: {variants}{shadows}")
    if binding["unmanaged"]:
        click.echo(f"unmanaged: {', '.join(binding['unmanaged'])}")


def variant_text(variant: dict[str, Any]) -> str:
    return f"{variant['model']}:{variant['version']}={variant['weight'] / 100:g}%"
