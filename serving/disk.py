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


def sync_folder(folder: Path) -> None:
    """What was created, renamed or removed in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
