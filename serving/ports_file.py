"""`ports.json` in a node's state folder: where its ports really are, so that port 0 in the settings is of use.

The worker writes it when it listens; its supervisor removes it when the worker has ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

NAME = "ports.json"


def write(state_dir: Path, addresses: Mapping[str, str]) -> None:
    """`addresses` maps the port's name to `host:port`. Readers see the old file or the new one."""
    state_dir.mkdir(parents=True, exist_ok=True)
    draft = state_dir / f"{NAME}.{os.getpid()}"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(addresses)) + b"\n")
    draft.replace(state_dir / NAME)


def read(state_dir: Path) -> dict[str, str]:
    """Empty when no node runs there, or what is there is not ours. A single port is those of callers, other parties
    and operators, too."""
    try:
        found = msgspec.json.decode((state_dir / NAME).read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return {**dict.fromkeys(("service", "party", "admin"), found["single"]), **found} if "single" in found else found


def remove(state_dir: Path) -> None:
    (state_dir / NAME).unlink(missing_ok=True)
