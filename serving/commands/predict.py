"""`tessera predict`: one case, from the command line."""

from __future__ import annotations

import dataclasses
from typing import IO, TYPE_CHECKING, Any

import click
import msgspec

from serving.commands.connection import Connection, connected
from serving.commands.output import show_json

if TYPE_CHECKING:
    from serving.client import Prediction


class Features(msgspec.Struct):
    """What the options say about the case."""

    number: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    features: Any = None

    def maps(self) -> tuple[dict[str, float], dict[str, str]]:
        """Numbers and texts by name; an option overrides the file. Raises UsageError."""
        numbers, texts = _from_file(self.features) if self.features is not None else ({}, {})
        for name, value in map(_pair, self.number):
            numbers[name] = _number(name, value)
        texts.update(map(_pair, self.text))
        return numbers, texts


@click.command()
@click.option("--service", default="", help="Service to ask; the party's default one when nothing is named.")
@click.option("--model", "version", metavar="MODEL:VERSION", default="", help="Ask a loaded version instead.")
@click.option("--user-id", default="", help="The user that the parties know by this id.")
@click.option("--case-id", default="", help="Repeat it on a retry: the answer may come from the cache.")
@click.option("--number", metavar="NAME=VALUE", multiple=True, help="A number feature. May be repeated.")
@click.option("--text", metavar="NAME=VALUE", multiple=True, help="A text feature. May be repeated.")
@click.option("--features", type=click.File("rb"), help="JSON object of features by name; - reads standard input.")
@connected("service", "127.0.0.1:8700")
def predict(connection: Connection, service: str, version: str, user_id: str, case_id: str, **features: Any) -> None:
    """Ask a service for the score of one case."""
    from serving.client import Case  # noqa: PLC0415 - keeps `tessera --help` quick

    if service and version:
        raise click.UsageError("give --service or --model, not both")
    name, _, version = version.partition(":")
    numbers, texts = Features(**features).maps()
    case = Case(user_id, numbers, texts, case_id)
    _show(connection, connection.predict(case, service=service, model=name, version=version))


def _show(connection: Connection, prediction: Prediction) -> None:
    reply = dataclasses.asdict(prediction)
    reply["attribution"] = prediction.attribution.hex()
    reply["cache"] = prediction.cache.name.lower()
    for party in reply["parties"]:
        party["status"], party["level"] = party["status"].name.lower(), party["level"].name.lower()
    if connection.as_json:
        show_json(reply)
        return
    click.echo(f"score: {', '.join(map(str, reply['score']))}" + (f" ({reply['label']})" if reply["label"] else ""))
    variant = f" (variant {reply['variant']})" if reply["variant"] else ""
    click.echo(f"version: {reply['model']} {reply['version']}{variant}")
    click.echo(f"complete: {'yes' if reply['complete'] else 'no'}")
    click.echo(f"cache: {reply['cache']}")
    for party in reply["parties"]:
        click.echo(f"party {party['party']}: {party['status']}, cache {party['level']}")


def _from_file(source: IO[bytes]) -> tuple[dict[str, float], dict[str, str]]:
    try:
        given = msgspec.json.decode(source.read(), type=dict[str, float | str | None])
    except msgspec.DecodeError as error:
        raise click.UsageError(f"--features must be a JSON object of numbers, texts and nulls: {error}") from None
    numbers = {name: value for name, value in given.items() if isinstance(value, float)}
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    return numbers, texts


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"{text!r} is not NAME=VALUE")
    return name, value


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise click.UsageError(f"--number {name}: {value!r} is not a number") from None
