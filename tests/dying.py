"""Processes that kill themselves at a step on the file system, as SIGKILL at that moment would.

Production code has no part in it: the steps are Python's audit events (PEP 578), `os.fsync` and `os.write`, which have
none. A step is told before it is taken; `synced` is told after `sync`, and `written` after `write`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EVENTS = {"open": "open", "os.rename": "rename", "os.link": "link", "os.remove": "remove", "os.truncate": "truncate"}
MARK = "die at "


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_steps(folder: Path, reached: Callable[[str], None]) -> None:
    """Call `reached` at every step of this process on `folder` or in it, such as `rename state.draft`. For good."""
    where = str(folder)

    def told(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and isinstance(arguments[0], str | os.PathLike):
            note(_EVENTS[event], os.fspath(arguments[0]))

    def note(step: str, path: str) -> None:
        if isinstance(path, str) and (path == where or path.startswith(f"{where}/")):
            reached(f"{step} {path.rpartition('/')[2]}")

    def around(real: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        def call(descriptor: int, *arguments: Any) -> Any:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            note(before, path)
            done = real(descriptor, *arguments)
            note(after, path)
            return done

        return call

    os.fsync = around(os.fsync, "sync", "synced")
    os.write = around(os.write, "write", "written")
    sys.addaudithook(told)


def die_where_marked(folder: Path) -> None:
    """At a step for which `arm` has left a mark in the folder. The mark goes with the process."""

    def reached(step: str) -> None:
        mark = folder / f"{MARK}{step}"
        if not step.endswith(mark.name) and mark.exists():
            mark.unlink()
            die()

    watch_steps(folder, reached)


def arm(folder: Path, step: str) -> None:
    (folder / f"{MARK}{step}").touch()
