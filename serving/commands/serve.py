"""`tessera serve`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Settings of the node.")
def serve(config: Path) -> None:
    """Run a node until SIGTERM. SIGHUP restarts it with the settings as they are then.

    Ends with code 2 when the settings, a port or a file will not do.
    """
    from serving import workers  # noqa: PLC0415 - keeps `tessera --help` quick
    from serving.exit_code import ExitCode  # noqa: PLC0415
    from serving.settings_file import SettingsError  # noqa: PLC0415

    try:
        sys.exit(workers.supervise(config))
    except (SettingsError, workers.InUseError, OSError) as error:
        for line in str(error).splitlines():
            click.echo(f"tessera: {line}", err=True)
        sys.exit(ExitCode.REFUSED)
