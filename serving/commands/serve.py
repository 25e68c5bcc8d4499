"""`tessera serve`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Settings of the node.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that share the ports.  [settings: workers]")
def serve(config: Path, workers: int | None) -> None:
    """Run a node until SIGTERM. SIGHUP replaces its workers one by one, with the settings as they are then.

    Ends with code 2 when the settings, a port or a file will not do.
    """
    from serving import workers as supervisor  # noqa: PLC0415 - keeps `tessera --help` quick
    from serving.exit_code import ExitCode  # noqa: PLC0415
    from serving.settings_file import SettingsError  # noqa: PLC0415

    try:
        sys.exit(supervisor.supervise(config, workers=workers))
    except (SettingsError, supervisor.InUseError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.filename is None else None
        for line in (reason or str(error)).splitlines():
            click.echo(f"tessera: {line}", err=True)
        sys.exit(ExitCode.REFUSED)
