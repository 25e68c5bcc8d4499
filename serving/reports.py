"""What the replicas of a party say of themselves, and where those of one machine leave it for each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import quote

import msgspec

from serving.disk import remove_older

REPORT_TTL_S = 5.0
"""Of a replica that does not report any more."""
_LITTER_S = 12 * REPORT_TTL_S


class ReplicaModel(msgspec.Struct, frozen=True):
    """A model or an app at one replica: its state's name, why it is not ready, and the binding of the half, or the
    app's digest."""

    state: str
    reason: str = ""
    binding_digest: str = ""


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica says of itself. `revision`: of the state that it follows; `models` by `name/version`, `apps` by
    `name:version`. `generation` tells processes apart that have one name, as a worker and its successor have for a
    while: later ones are greater. `node`: the same for its workers, "" from a version before. `age_s`: since it was
    said, filled in by who reads it."""

    replica: str
    revision: int
    models: dict[str, ReplicaModel] = {}
    apps: dict[str, ReplicaModel] = {}
    generation: str = ""
    node: str = ""
    age_s: float = 0.0

    @property
    def key(self) -> str:
        """No other process has it."""
        return f"{self.replica}@{self.generation}"


msgspec.json.Decoder(ReplicaReport)  # see loaders/artifact.py


class FileReports:
    """A file for each process in one folder. Beside it lies a file that the process keeps locked: the kernel lets go of
    the lock when the process ends, however that ends, and what it said counts no more. `clock` is Unix seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._locks: dict[Path, TextIOWrapper] = {}

    def report(self, report: ReplicaReport) -> None:
        """Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        path, now_s = self._path(report), self._clock()
        self._say_alive(path, now_s)
        draft = path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(report))
        os.utime(draft, (now_s, now_s))
        draft.replace(path)

    def withdraw(self, report: ReplicaReport) -> None:
        path = self._path(report)
        _remove(path)
        lock = self._locks.pop(path, None)
        if lock is not None:
            lock.close()

    def reports(self) -> list[ReplicaReport]:
        """Of the processes that live, by key."""
        now_s, found = self._clock(), []
        remove_older(self._folder, now_s - _LITTER_S)
        for path in sorted(self._folder.glob("*.json")):
            try:
                age_s = max(0.0, now_s - path.stat().st_mtime)
                if _has_ended(path):
                    _remove(path)
                elif age_s < REPORT_TTL_S:
                    report = msgspec.json.decode(path.read_bytes(), type=ReplicaReport)
                    found.append(msgspec.structs.replace(report, age_s=age_s))
            except (OSError, msgspec.MsgspecError):
                continue  # gone meanwhile, or of another version
        return found

    def close(self) -> None:
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    def _say_alive(self, path: Path, now_s: float) -> None:
        """Before the report is there: nobody tries the lock until then."""
        if path not in self._locks:
            lock = self._locks[path] = _lock_of(path).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):  # somebody cleared the folder
            os.utime(_lock_of(path), (now_s, now_s))

    def _path(self, report: ReplicaReport) -> Path:
        return self._folder / f"{quote(report.key, safe='')}.json"


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".alive")


def _has_ended(path: Path) -> bool:
    """Whether the process of a report has; False where it keeps no lock."""
    try:
        with _lock_of(path).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _lock_of(path).unlink(missing_ok=True)
