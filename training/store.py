"""The folder of a job at one party, `<work_dir>/<job>/`.

`status.json` (replaced atomically), `metrics.jsonl`, `log`, and `tasks/<task>/<port>/`: a table as `table.parquet`, a
model part as `model.json` and one `.npy` per array. Nothing is pickled. One process at a time owns the folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from training import tables
from training.component import ModelPart, Table, Value


class State(Enum):
    """Of a job or a task at one party."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.FAILED, State.STOPPED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.STOPPED: frozenset(),
}


class StoreError(Exception):
    """The folder cannot be used so; the text names it and what to do."""


class Status(msgspec.Struct, frozen=True):
    """`reason`: why it failed or stopped. `role` is this party's."""

    job: str
    party: str
    role: str
    digest: str
    state: State = State.PENDING
    reason: str = ""
    tasks: dict[str, State] = {}


class Metric(msgspec.Struct, frozen=True):
    """One point of a metric of a task."""

    task: str
    name: str
    value: float
    step: int = 0


class _ModelDocument(msgspec.Struct, frozen=True):
    kind: str
    columns: tuple[str, ...]
    arrays: tuple[str, ...]
    attributes: dict[str, Any]


class JobStore:
    """Use as a context manager; all but `add_metric` block. A job that failed or was stopped starts anew; one that
    succeeded is kept."""

    def __init__(self, folder: Path, status: Status) -> None:
        self.folder = folder
        self.status = status
        self._lock = -1
        self._moving = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._unwritten: list[Future[None]] = []

    def __enter__(self) -> JobStore:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()
        os.close(self._lock)

    def _begin(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"job {self.status.job} runs already, in {self.folder}") from None
        if (self.folder / "status.json").exists() and read_status(self.folder).state is State.SUCCEEDED:
            raise StoreError(f"job {self.status.job} succeeded before, see {self.folder}: give the job another id")
        shutil.rmtree(self.folder / "tasks", ignore_errors=True)
        for name in ("metrics.jsonl", "log"):
            (self.folder / name).unlink(missing_ok=True)
        self._write(self.status)

    def move(self, state: State, reason: str = "") -> None:
        """Metrics logged before are on disk when this returns."""
        self._flush()
        with self._moving:
            _check(f"job {self.status.job}", self.status.state, state)
            self._write(msgspec.structs.replace(self.status, state=state, reason=reason))

    def move_task(self, task: str, state: State) -> None:
        with self._moving:
            _check(f"task {task}", self.status.tasks.get(task, State.PENDING), state)
            self._write(msgspec.structs.replace(self.status, tasks={**self.status.tasks, task: state}))

    def add_metric(self, metric: Metric) -> None:
        """Does not block: a thread writes metrics in order."""
        self._unwritten.append(self._writer.submit(self._append, msgspec.json.encode(metric) + b"\n"))

    def save(self, task: str, port: str, value: Value) -> None:
        folder = self._port(task, port)
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(value, Table):
            tables.write_parquet(folder / "table.parquet", value)
            return
        for name, array in value.arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        document = _ModelDocument(value.kind, value.columns, tuple(value.arrays), dict(value.attributes))
        (folder / "model.json").write_bytes(msgspec.json.encode(document))

    def load(self, task: str, port: str) -> Value | None:
        """What `save` stored; None if that output does not exist."""
        folder = self._port(task, port)
        if (folder / "table.parquet").exists():
            return tables.read_parquet(folder / "table.parquet")
        if not (folder / "model.json").exists():
            return None
        document = msgspec.json.decode((folder / "model.json").read_bytes(), type=_ModelDocument)
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in document.arrays}
        return ModelPart(document.kind, document.columns, arrays, document.attributes)

    def _append(self, line: bytes) -> None:
        with (self.folder / "metrics.jsonl").open("ab") as file:
            file.write(line)

    def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        for write in unwritten:
            write.result()

    def _port(self, task: str, port: str) -> Path:
        return self.folder / "tasks" / task / port

    def _write(self, status: Status) -> None:
        self.status = status
        draft = self.folder / "status.json.draft"
        with draft.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(status), indent=2))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / "status.json")


def read_status(folder: Path) -> Status:
    try:
        return msgspec.json.decode((folder / "status.json").read_bytes(), type=Status)
    except OSError:
        raise StoreError(f"{folder} is not the folder of a job: it has no status.json") from None
    except msgspec.DecodeError as error:
        raise StoreError(f"{folder}/status.json cannot be read: {error}") from None


def read_metrics(folder: Path) -> list[Metric]:
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Metric) for line in lines]


def _check(what: str, before: State, after: State) -> None:
    if after not in TRANSITIONS[before]:
        raise StoreError(f"{what} is {before.value} and cannot become {after.value}")
