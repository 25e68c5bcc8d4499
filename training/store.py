"""The folder of a job at one party, `<work_dir>/<job>/`.

`status.json` (replaced atomically), `metrics.jsonl`, `log`, and `tasks/<task>/<port>/`: a table as `table.parquet`, a
model part as `model.json` and one `.npy` per array. Nothing is pickled. One process at a time owns the folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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
    succeeded is kept. What cannot be written, as on a full disk, is a StoreError."""

    def __init__(self, folder: Path, status: Status) -> None:
        self.folder = folder
        self.status = status
        self._lock = -1
        self._moving = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._unwritten: list[Future[None]] = []

    def __enter__(self) -> JobStore:
        with _writing(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _writing(self.folder):
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

    def end(self, running: State, state: State, reason: str) -> None:
        """Settle the job, and whatever task runs, in one step: a thread may be about to finish it."""
        self._flush()
        with self._moving:
            _check(f"job {self.status.job}", self.status.state, state)
            tasks = {task: running if now is State.RUNNING else now for task, now in self.status.tasks.items()}
            self._write(msgspec.structs.replace(self.status, state=state, reason=reason, tasks=tasks))

    def move_task(self, task: str, state: State) -> None:
        with self._moving:
            if not TRANSITIONS[self.status.state]:
                raise StoreError(f"job {self.status.job} is {self.status.state.value}; task {task} is too late")
            _check(f"task {task}", self.status.tasks.get(task, State.PENDING), state)
            self._write(msgspec.structs.replace(self.status, tasks={**self.status.tasks, task: state}))

    def add_metric(self, metric: Metric) -> None:
        """Does not block: a thread writes metrics in order."""
        self._unwritten.append(self._writer.submit(self._append, msgspec.json.encode(metric) + b"\n"))

    def save(self, task: str, port: str, value: Value) -> None:
        folder = self._port(task, port)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(value, Table):
                tables.write_parquet(folder / "table.parquet", value)
            else:
                _save_model(folder, value)

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
        with _writing(self.folder):
            for write in unwritten:
                write.result()

    def _port(self, task: str, port: str) -> Path:
        return self.folder / "tasks" / task / port

    def _write(self, status: Status) -> None:
        draft = self.folder / "status.json.draft"
        with _writing(self.folder):
            with draft.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(status), indent=2))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.folder / "status.json")
        self.status = status


def read_status(folder: Path) -> Status:
    try:
        return msgspec.json.decode((folder / "status.json").read_bytes(), type=Status)
    except OSError:
        raise StoreError(f"{folder} is not the folder of a job: it has no status.json") from None
    except msgspec.DecodeError as error:
        raise StoreError(f"{folder}/status.json cannot be read: {error}") from None


def settled_status(folder: Path) -> Status:
    """Like `read_status`, but a job that runs no more, since its process was killed, counts as failed."""
    status = read_status(folder)
    if State.FAILED not in TRANSITIONS[status.state] or _is_owned(folder):
        return status
    return msgspec.structs.replace(status, state=State.FAILED, reason="its process ended without a word; run it again")


def read_metrics(folder: Path) -> list[Metric]:
    """A last line without its end is left out: the process was killed while it wrote it."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return [msgspec.json.decode(line, type=Metric) for line in lines]
    except msgspec.DecodeError as error:
        raise StoreError(f"{path} cannot be read: {error}") from None


def _save_model(folder: Path, part: ModelPart) -> None:
    for name, array in part.arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    document = _ModelDocument(part.kind, part.columns, tuple(part.arrays), dict(part.attributes))
    (folder / "model.json").write_bytes(msgspec.json.encode(document))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from error


def _is_owned(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _check(what: str, before: State, after: State) -> None:
    if after not in TRANSITIONS[before]:
        raise StoreError(f"{what} is {before.value} and cannot become {after.value}")
