"""Files that are whole, and on the disk, before anybody is told that they are written."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, raw: bytes) -> None:
    """Leaves nothing behind when it fails."""
    try:
        with path.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def remove_older(folder: Path, before_s: float) -> None:
    """Files that nobody has touched since then, Unix time: what processes leave that end without warning."""
    for path in folder.glob("*"):
        try:
            if path.stat().st_mtime < before_s:
                path.unlink()
        except OSError:
            continue  # another process was faster


def sync_folder(folder: Path) -> None:
    """What was created, renamed or removed in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
