"""The command `tessera`. Sub-commands come from entry points, so that an installation without an extra still works."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import click

GROUP = "tessera.commands"
_EXTRAS = {"sklearn": "train", "tenseal": "train", "locust": "bench", "sqlalchemy": "sql"}


def missing_extra(error: ModuleNotFoundError) -> click.ClickException:
    """What to install for a module that only an extra brings; our own bug otherwise."""
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    return click.ClickException(f"this needs the extra {extra!r}: pip install 'tessera-federated[{extra}]'")


class EntryPointGroup(click.Group):
    """Loads a sub-command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        for entry in entry_points(group=GROUP, name=cmd_name):
            return _loaded(entry)
        return None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise missing_extra(error) from None


def _loaded(entry: EntryPoint) -> click.Command:
    try:
        command: click.Command = entry.load()
    except ModuleNotFoundError as error:
        return _unavailable(entry.name, missing_extra(error))
    return command


def _unavailable(name: str, reason: click.ClickException) -> click.Command:
    def refuse(arguments: tuple[str, ...]) -> NoReturn:
        del arguments
        raise reason

    return click.Command(
        name,
        callback=refuse,
        help=f"Not installed: {reason.message}.",
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
    )


@click.group(cls=EntryPointGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tessera-federated")
def main() -> None:
    """Tessera: online federated inference, and the training that feeds it."""
