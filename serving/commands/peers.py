"""`tessera peers ...`: the other parties as a node sees them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from serving.commands.connection import Connection
from serving.commands.model import admin
from serving.commands.output import plain, show_json, show_table


@click.group()
def peers() -> None:
    """Look at the other parties."""


@peers.command()
@click.argument("party", default="")
@admin
def show(connection: Connection, party: str) -> None:
    """Show whether PARTY (or every other party) answers, what it has loaded, and what it may ask here."""
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    reply = connection.ask(admin_pb2_grpc.AdminStub, "ListPeers", admin_pb2.ListPeersRequest())
    found = [_plain(one) for one in reply.peers if party in {"", one.party}]
    if party and not found:
        known = ", ".join(one.party for one in reply.peers) or "none"
        raise click.ClickException(f"NOT_FOUND: no peer {party}; known: {known}")
    if connection.as_json:
        show_json(found)
        return
    columns = (
        "party",
        "answers",
        "version",
        "protocol",
        "models",
        "may load",
        "purposes",
        "budget",
        "window ends (UTC)",
    )
    show_table(columns, [_row(one) for one in found])


def _plain(one: Any) -> dict[str, Any]:
    absent = {field: None for field in ("users", "budget") if not one.HasField(field)}
    halves = [{**plain(half), "state": plain(half)["state"].removeprefix("HALF_STATE_").lower()} for half in one.halves]
    return {**plain(one), **absent, "halves": halves}


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    answers = one["problem"] or f"in {1_000 * one['round_trip_s']:.1f} ms"
    models = ", ".join(f"{half['model']}:{half['version']} {half['state']}" for half in one["halves"])
    budget, ends = "any", ""
    if one["budget"] is not None:
        budget = f"{one['spent']} of {one['budget']}" + (f", {one['refused']} rejected" if one["refused"] else "")
        ends = datetime.fromtimestamp(one["window_ends_ms"] / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    if one["users"] is not None:
        budget += f", {one['users']} users"
    lists = (", ".join(one[key]) for key in ("may_load", "purposes"))
    return (one["party"], answers, one["software"], one["protocol"], models, *lists, budget, ends)
