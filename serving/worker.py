"""The worker process: settings, assembly, one node on a uvloop, until SIGTERM."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from loaders.artifact import ArtifactError
from loaders.loader import LoadError
from serving.errors import TesseraError
from serving.exit_code import ExitCode
from serving.features.source import FeatureSourceError
from serving.handover import Handover
from serving.node import NOTHING_HANDED, Node
from serving.settings import Settings
from serving.settings_file import SettingsError, load
from serving.shared_counts import SharedCounts, shared_counts
from serving.telemetry import logs

Assemble = Callable[[Settings, SharedCounts | None], Awaitable[Node]]

_PR_SET_PDEATHSIG = 1
_SWITCH_S = 5e-4
"""How long the event loop waits at most for a thread that loads a model, by its own doing, to let it run; 5 ms else."""


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(ExitCode.FAILED)  # it ended before we asked


def run(config: Path, assemble: Assemble, handover: Handover = NOTHING_HANDED) -> ExitCode:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = load(config, os.environ)
        logs.set_up(settings.log_level, settings.log_format)
        # What was imported stays for good: collections under load need not walk it.
        gc.freeze()
        sys.setswitchinterval(_SWITCH_S)
        uvloop.run(_live(settings, assemble, handover))
    except (SettingsError, OSError, TesseraError, FeatureSourceError, ArtifactError, LoadError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.filename is None else None
        sys.stderr.write(f"tessera: {reason or error}\n")
        return ExitCode.REFUSED
    return ExitCode.OK


async def _live(settings: Settings, assemble: Assemble, handover: Handover) -> None:
    node = await assemble(settings, shared_counts(handover.seat))
    for number in (signal.SIGTERM, signal.SIGINT):
        get_running_loop().add_signal_handler(number, node.ask_to_stop)
    await node.run(handover)
