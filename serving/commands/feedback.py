"""`tessera feedback`: outcomes of answered cases, from a CSV file."""

from __future__ import annotations

import base64
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.commands.connection import Connection
from serving.commands.model import admin
from serving.commands.output import show_json

if TYPE_CHECKING:
    from tessera.v1 import admin_pb2

ROWS = 1_000
"""In one call."""
_COLUMNS = {"attribution", "label"}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@admin
def feedback(connection: Connection, file: Path) -> None:
    """Send the outcomes in FILE: a CSV with the columns attribution (base64 or hexadecimal) and label (1 or 0).

    An attribution counts once, so a file may be sent again, whole, after an interruption.
    """
    from tessera.v1 import admin_pb2, admin_pb2_grpc  # noqa: PLC0415 - keeps `tessera --help` quick

    accepted, known = 0, 0
    refused: list[int] = []
    outcomes = _outcomes(file)
    while some := list(itertools.islice(outcomes, ROWS)):
        request = admin_pb2.FeedbackRequest(outcomes=[outcome for _, outcome in some])
        reply = connection.ask(admin_pb2_grpc.AdminStub, "Feedback", request)
        accepted, known = accepted + reply.accepted, known + reply.known
        refused += [some[place][0] for place in reply.refused]
    if connection.as_json:
        show_json({"accepted": accepted, "known": known, "refused_lines": refused})
        return
    click.echo(f"{accepted} accepted, {known} known before, {len(refused)} refused")
    if refused:
        shown = ", ".join(map(str, refused[:10])) + (", ..." if len(refused) > 10 else "")
        click.echo(f"refused, not attributions of this party or too old: line {shown}", err=True)


def _outcomes(file: Path) -> Iterator[tuple[int, admin_pb2.Outcome]]:
    """With the number of the line. Raises ClickException naming it."""
    from tessera.v1 import admin_pb2  # noqa: PLC0415

    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.DictReader(opened)
        lacking = _COLUMNS - set(rows.fieldnames or ())
        if lacking:
            raise click.ClickException(f"{file}: no column {', '.join(sorted(lacking))} in the first line")
        for row in rows:
            try:
                yield (
                    rows.line_num,
                    admin_pb2.Outcome(attribution=_bytes(row["attribution"]), label=float(row["label"])),
                )
            except (TypeError, ValueError):
                raise click.ClickException(
                    f"{file}, line {rows.line_num}: needs an attribution (base64 or hexadecimal) and a label (1 or 0)"
                ) from None


def _bytes(text: str) -> bytes:
    """`tessera predict --json` and JSON over HTTP show bytes differently."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return base64.b64decode(text, validate=True)
