"""`tessera limit ...`: what services, models, callers and parties may ask, while a node runs."""

from __future__ import annotations

from typing import Any

import click

from serving.commands.connection import Connection
from serving.commands.model import admin
from serving.commands.output import plain, show_json, show_table
from serving.limit_kind import LimitKind

_KIND = click.Choice([kind.value for kind in LimitKind])
_COLUMNS = ("kind", "name", "limit", "from", "the settings say")
_BOUNDS = ("per_s", "burst", "concurrent")


@click.group()
def limit() -> None:
    """Bound what a service, model, caller or party may ask.

    A limit that is set counts at all replicas, in place of what the settings say for the name, and stays over restarts
    until it is cleared.

    \b
    NAME by KIND:
      service   as callers name it
      model     all its versions together
      caller    a principal, a name in a certificate, or `anonymous`
      party     another party, when it asks this one
      resource  of FATE's flow rules: I_ and a method, or M_ and a model
    The name `default` is for all names of a kind that have no limit of their own, each counted apart.
    """


@limit.command("set")
@click.argument("kind", type=_KIND)
@click.argument("name")
@click.option("--rate", "per_s", type=click.FloatRange(min=0), metavar="ROWS", help="Rows a second; 0 lets nothing in.")
@click.option("--burst", type=click.IntRange(min=1), metavar="ROWS", help="That may come at once.  [those of a second]")
@click.option("--concurrent", type=click.IntRange(min=1), metavar="CALLS", help="At once.")
@click.option("--across-nodes", is_flag=True, help="The rate is that of all nodes together; each has an equal part.")
@click.option("--unlimited", is_flag=True, help="Lift the limit that the settings or `default` put on the name.")
@admin
def set_limit(connection: Connection, kind: str, name: str, unlimited: bool, **bounds: Any) -> None:
    """Set a limit, whole: what is not given is not limited, whatever was before.

    \b
    tessera limit set service credit --rate 500 --burst 1000
    tessera limit set caller default --concurrent 20
    """
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    if unlimited == any(bounds[name] is not None for name in _BOUNDS):
        raise click.UsageError("give --rate or --concurrent, or --unlimited")
    request = admin_pb2.SetLimitRequest(kind=_number(kind), name=name, limit=admin_pb2.Limit(**bounds))
    connection.ask(admin_pb2_grpc.AdminStub, "SetLimit", request)
    if connection.as_json:
        show_json({"kind": kind, "name": name, "limit": bounds})
    else:
        click.echo(f"{kind} {name}: {_text(bounds)}")


@limit.command()
@click.argument("kind", type=_KIND)
@click.argument("name")
@admin
def clear(connection: Connection, kind: str, name: str) -> None:
    """Return to what the settings say for a name."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    request = admin_pb2.ClearLimitRequest(kind=_number(kind), name=name)
    reply = connection.ask(admin_pb2_grpc.AdminStub, "ClearLimit", request)
    now = _status(reply.status) if reply.HasField("status") else None
    if connection.as_json:
        show_json({"kind": kind, "name": name, "cleared": reply.cleared, "limit": now and now["limit"]})
        return
    was = "" if reply.cleared else "nothing was set; "
    click.echo(f"{kind} {name}: {was}{_text(now['limit']) + ' from the settings' if now else 'no limit of its own'}")


@limit.command("list")
@admin
def list_limits(connection: Connection) -> None:
    """Show what is limited, and whether the settings say so or somebody has set it."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415

    reply = connection.ask(admin_pb2_grpc.AdminStub, "ListLimits", admin_pb2.ListLimitsRequest())
    limits = [_status(one) for one in reply.limits]
    if connection.as_json:
        show_json(limits)
        return
    rows = [
        (one["kind"], one["name"], _text(one["limit"]), one["from"], _text(one["settings"]) if one["settings"] else "")
        for one in limits
    ]
    show_table(_COLUMNS, rows)


def _number(kind: str) -> Any:
    from tessera.v1 import admin_pb2  # noqa: PLC0415

    return admin_pb2.LimitKind.Value(f"LIMIT_KIND_{kind.upper()}")


def _status(message: Any) -> dict[str, Any]:
    shown = plain(message)
    return {
        "kind": shown["kind"].removeprefix("LIMIT_KIND_").lower(),
        "name": message.name,
        "limit": _bounds(message.limit),
        "from": "set" if message.is_set else "settings",
        "settings": _bounds(message.settings) if message.HasField("settings") else None,
    }


def _bounds(message: Any) -> dict[str, Any]:
    """Absent is not 0."""
    bounds = {name: getattr(message, name) if message.HasField(name) else None for name in _BOUNDS}
    return {**bounds, "across_nodes": message.across_nodes}


def _text(bounds: dict[str, Any]) -> str:
    parts = []
    if bounds["per_s"] is not None:
        parts.append(f"{bounds['per_s']:g} rows a second" if bounds["per_s"] else "closed")
    if bounds["burst"] is not None:
        parts.append(f"burst {bounds['burst']}")
    if bounds["across_nodes"]:
        parts.append("at all nodes together")
    if bounds["concurrent"] is not None:
        parts.append(f"{bounds['concurrent']} calls at once")
    return ", ".join(parts) or "unlimited"
