"""The wanted state of a node: models, service bindings, holds, limits. And where it is kept.

Acknowledged means: compared and set on the revision, then on disk (file and folder synced). A newer minor version's
unknown keys are kept when this version writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import rfc8785

from serving.disk import sync_folder, write_synced
from serving.errors import ConflictError
from serving.leases import FileLeases, Leases, MemoryLeases
from serving.reports import REPORT_TTL_S, FileReports, ReplicaReport
from serving.settings import RateLimit

SCHEMA = "1.1"
"""1.0 kept FATE's flow rules apart from other limits: see `_upgraded`."""


class WantedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch`: the state's revision when this version was last asked for: the first time, or again because it had
    failed at a replica."""

    model: str
    version: str
    epoch: int


class WantedApp(msgspec.Struct, frozen=True, kw_only=True):
    """`digest`: what is to run under this name and version; `epoch`: as of models."""

    name: str
    version: str
    digest: str
    epoch: int


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """`weight` in basis points; `ranges` half-open intervals of buckets, together as many as the weight."""

    model: str
    version: str
    weight: int
    ranges: tuple[tuple[int, int], ...]


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What a service name leads to. `app`: the name of one built in, else `name:version`. `app_parameters` is a JSON
    object. `shadows` run without answering, for the users in their ranges. `unmanaged`: hosts without holds that an
    operator has accepted."""

    variants: tuple[Variant, ...]
    app: str
    app_parameters: str = ""
    shadows: tuple[Variant, ...] = ()
    unmanaged: tuple[str, ...] = ()


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` counts this service's bindings; `epoch` is the state's revision of the last change; `salt` hex;
    `publish` names the change that made the binding: under this name its versions are held at the hosts."""

    revision: int
    epoch: int
    salt: str
    current: Binding
    previous: Binding | None = None
    publish: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Another party needs a version here until `expires_s`, Unix time: for the binding of its service that `publish`
    makes or made."""

    party: str
    service: str
    model: str
    version: str
    revision: int
    expires_s: float
    publish: str = ""


class WantedLimit(RateLimit, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """In place of what the settings say for the name."""


class TraceChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls operators want traced; None: as the settings have it. `count`: of those without a context, so many
    more and then none; `serial` rises with every choice, for the count to begin anew."""

    is_on: bool | None = None
    share: float | None = None
    count: int | None = None
    serial: int = 0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must survive a restart. `revision` rises by one with every change."""

    schema: str = SCHEMA
    revision: int = 0
    models: tuple[WantedModel, ...] = ()
    services: dict[str, Service] = {}
    default_service: str = ""
    holds: tuple[Hold, ...] = ()
    limits: dict[str, dict[str, WantedLimit]] = {}
    """By the value of a LimitKind, which a newer version may have more of, and name."""
    log_level: str = ""
    """In place of the settings'."""
    apps: tuple[WantedApp, ...] = ()
    traces: TraceChoice = TraceChoice()


class SnapshotError(OSError):
    """The kept state cannot be read; the text names the file and the remedy."""


class InDoubtError(OSError):
    """Nobody has said whether the change was made; what is read later shows it."""


class ControlStore(ABC):
    """Keeps one State for all replicas of a party, and what they report. Thread-safe; `read` is cheap and may be as old
    as the last `refresh`; the other methods wait for a disk or a network and raise OSError when that fails.
    `leases`: for work that one of the replicas does."""

    leases: Leases

    @abstractmethod
    def read(self) -> State: ...

    @abstractmethod
    def compare_and_set(self, expected_revision: int, state: State) -> State:
        """Store `state` with the next revision and return it as stored. Raises ConflictError when somebody else changed
        the state meanwhile, which `read` shows then, OSError when it cannot be written; then nothing has changed,
        unless it is an InDoubtError."""

    @abstractmethod
    def refresh(self) -> None:
        """Let `read` show what other replicas have stored."""

    @abstractmethod
    def report(self, report: ReplicaReport) -> None:
        """Tell the other replicas; forgotten after `REPORT_TTL_S`."""

    @abstractmethod
    def withdraw(self, report: ReplicaReport) -> None:
        """The replica stops: forget at once what it has said last. Nothing may be there."""

    @abstractmethod
    def reports(self) -> list[ReplicaReport]:
        """Of all replicas that live, this one among them, by key."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of files and connections."""


class MemoryControlStore(ControlStore):
    """For tests and throw-away nodes: nothing survives. `clock` is any seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = State()
        self._lock = threading.Lock()
        self._clock = clock
        self._reports: dict[str, tuple[float, ReplicaReport]] = {}
        self.leases = MemoryLeases(clock)

    def read(self) -> State:
        return self._state

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        with self._lock:
            self._state = successor(self._state, expected_revision, state)
            return self._state

    def refresh(self) -> None:
        """There is but one state."""

    def report(self, report: ReplicaReport) -> None:
        self._reports = {**self._reports, report.key: (self._clock(), report)}

    def withdraw(self, report: ReplicaReport) -> None:
        self._reports = {key: told for key, told in self._reports.items() if key != report.key}

    def reports(self) -> list[ReplicaReport]:
        now_s = self._clock()
        told = [(now_s - told_s, report) for _, (told_s, report) in sorted(self._reports.items())]
        return [msgspec.structs.replace(report, age_s=age_s) for age_s, report in told if age_s < REPORT_TTL_S]


class FileControlStore(ControlStore):
    """`state.json` in the state folder: the state and its SHA-256; the one before is kept beside it. The workers of one
    machine may share the folder: a lock file orders their changes. `clock` is Unix seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "state.json"
        self._reports = FileReports(folder / "replicas", clock)
        self._clock = clock
        self._lock = threading.Lock()
        self._document: dict[str, Any] = {}
        self._state = State()
        self._stamp: tuple[int, int] | None = None
        self.leases = FileLeases(folder / "leases", clock)
        self.refresh()

    def read(self) -> State:
        return self._state

    @property
    def document(self) -> dict[str, Any]:
        """The state as it is kept, with what this version does not know."""
        return self._document

    def keep(self, document: dict[str, Any], state: State) -> None:
        """As another store has it, unless what is here is newer. Raises OSError."""
        with self._lock, self._exclusively():
            self._read_newer()
            if self._state.revision < state.revision:
                self._write(document)
                self._document, self._state, self._stamp = document, state, self._stamp_now()

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        with self._lock, self._exclusively():
            self._read_newer()
            changed = successor(self._state, expected_revision, state)
            document = with_unknown_keys(msgspec.to_builtins(changed), self._document, msgspec.to_builtins(self._state))
            self._write(document)
            self._document, self._state, self._stamp = document, changed, self._stamp_now()
            return changed

    def refresh(self) -> None:
        """Raises SnapshotError."""
        with self._lock:
            self._read_newer()

    def report(self, report: ReplicaReport) -> None:
        self._reports.report(report)

    def withdraw(self, report: ReplicaReport) -> None:
        self._reports.withdraw(report)

    def reports(self) -> list[ReplicaReport]:
        return self._reports.reports()

    def close(self) -> None:
        self._reports.close()

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        with self._path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_ino)

    def _read_newer(self) -> None:
        stamp = self._stamp_now()
        if stamp is None or stamp == self._stamp:
            return
        self._document, self._state = decoded(str(self._path), _read_document(self._path))
        self._stamp = stamp

    def _write(self, document: dict[str, Any]) -> None:
        """The new file is complete on disk before it takes the name of the old one."""
        raw = rfc8785.dumps({"sha256": _checksum(document), "state": document})
        draft = self._path.with_suffix(".draft")
        write_synced(draft, raw)
        if self._path.exists():
            previous = self._path.with_suffix(".previous.json")
            previous.unlink(missing_ok=True)
            previous.hardlink_to(self._path)
        draft.replace(self._path)
        sync_folder(self._path.parent)


def successor(current: State, expected_revision: int, state: State) -> State:
    if current.revision != expected_revision:
        raise ConflictError(
            f"the state has changed meanwhile, it is at revision {current.revision}; look and try again"
        )
    return msgspec.structs.replace(state, revision=expected_revision + 1)


def _read_document(path: Path) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        document: dict[str, Any] = content["state"]
        intact = content["sha256"] == _checksum(document)
    except FileNotFoundError:
        return {}
    except (msgspec.MsgspecError, KeyError, TypeError, rfc8785.CanonicalizationError):
        intact = False
    if not intact:
        raise SnapshotError(
            f"{path} is corrupt. Restore it from a backup, or move {path.stem}.previous.json in its place, which lacks "
            f"the last change; then start again"
        )
    return document


def decoded(origin: str, document: dict[str, Any]) -> tuple[dict[str, Any], State]:
    """The document as this version would have written it, and its state. Raises SnapshotError."""
    schema = str(document.get("schema", SCHEMA))
    if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise SnapshotError(
            f"{origin} has schema {schema}, this version reads {SCHEMA}; start the version that wrote it"
        )
    try:
        current = _upgraded(document)
        return current, msgspec.convert(current, State)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"{origin}: {error}; restore it from a backup, then start again") from None


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Flow rules of 1.0 are limits. Beside limits they are those of a worker that is being replaced, and newer."""
    current = {key: value for key, value in document.items() if key != "flow_rules"}
    if current.get("schema") == "1.0":
        current["schema"] = SCHEMA
    rules = msgspec.convert(document.get("flow_rules", {}), dict[str, float])
    if rules:
        limits = msgspec.convert(current.get("limits", {}), dict[str, dict[str, Any]])
        resources = {name: {"per_s": per_s} for name, per_s in rules.items()}
        current["limits"] = {**limits, "resource": {**limits.get("resource", {}), **resources}}
    return current


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(document)).hexdigest()


_BINDINGS = ("current", "previous")
_SERVICE = set(Service.__struct_fields__)


def _entry(key: str, new: Any, before: Any, known: Any) -> Any:
    if key in _BINDINGS and known.keys() >= _SERVICE:
        places = sorted(_BINDINGS, key=lambda place: place != key)
        return next((before[place] for place in places if place in before and known[place] == new), new)
    return with_unknown_keys(new, before[key], known[key]) if key in before else new


def with_unknown_keys(new: Any, before: Any, known: Any) -> Any:
    """`new` plus what `before` had and this version does not know, at the same places; `known` is `before` as this
    version reads it. An entry of a list is at the same place while this version does not change it; a service's binding
    is itself wherever it stands, and a new one has nothing unknown."""
    if new == known:
        return before
    if isinstance(new, dict) and isinstance(known, dict):
        unknown = {key: value for key, value in before.items() if key not in known}
        merged = {key: _entry(key, value, before, known) for key, value in new.items()}
        return unknown | merged
    if isinstance(new, tuple) and isinstance(known, tuple):
        return [next((b for b, k in zip(before, known, strict=True) if k == item), item) for item in new]
    return new


msgspec.json.Decoder(State)  # see loaders/artifact.py
