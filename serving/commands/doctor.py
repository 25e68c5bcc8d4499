"""`tessera doctor`: what is wrong with a node, and why."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.commands.output import show_json

if TYPE_CHECKING:
    from serving.settings import Settings

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The node's settings.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--quiet", is_flag=True, help="Leave out what is well.")
def doctor(config: Path, as_json: bool, quiet: bool) -> None:
    """Check settings, folders, certificates, ports, caches, clocks, peers and models; the node may run or not.

    Each finding says its cause in one line. Exit status 1 when there is an error.
    """
    from serving.doctor import Finding, Level, examine  # noqa: PLC0415 - keeps `tessera --help` quick
    from serving.settings_file import SettingsError, load  # noqa: PLC0415

    async def findings(settings: Settings) -> list[Finding]:
        return [finding async for finding in examine(settings)]

    try:
        found = asyncio.run(findings(load(config, os.environ)))
    except SettingsError as error:
        found = [Finding(Level.ERROR, "settings", problem) for problem in error.problems]
    shown = [one for one in found if one.level is not Level.OK or not quiet]
    if as_json:
        show_json(shown)
    else:
        for one in shown:
            click.echo(f"{click.style(f'{one.level.value:8}', fg=_COLOURS[one.level.value])}{one.subject}: {one.text}")
    if any(one.level is Level.ERROR for one in found):
        raise click.exceptions.Exit(1)
