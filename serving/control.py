"""The wanted state of a node: models, service bindings, holds. And where it is kept.

Acknowledged means: compared and set on the revision, then on disk (file and folder synced). A newer minor version's
unknown keys are kept when this version writes.
"""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import msgspec
import rfc8785

from serving.errors import ConflictError

SCHEMA = "1.0"


class WantedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`epoch`: the state's revision when this version was last loaded."""

    model: str
    version: str
    epoch: int


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """`weight` in basis points; `ranges` half-open intervals of buckets, together as many as the weight."""

    model: str
    version: str
    weight: int
    ranges: tuple[tuple[int, int], ...]


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What a service name leads to. `app_parameters` is a JSON object."""

    variants: tuple[Variant, ...]
    app: str
    app_parameters: str = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` counts this service's bindings; `epoch` is the state's revision of the last change; `salt` hex."""

    revision: int
    epoch: int
    salt: str
    current: Binding
    previous: Binding | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Another party needs a version here until `expires_s`, Unix time."""

    party: str
    service: str
    model: str
    version: str
    revision: int
    expires_s: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that must survive a restart. `revision` rises by one with every change."""

    schema: str = SCHEMA
    revision: int = 0
    models: tuple[WantedModel, ...] = ()
    services: dict[str, Service] = {}
    default_service: str = ""
    holds: tuple[Hold, ...] = ()


class SnapshotError(OSError):
    """The kept state cannot be read; the text names the file and the remedy."""


class ControlStore(ABC):
    """Keeps one State. Thread-safe; `read` is cheap, `compare_and_set` waits for the disk."""

    @abstractmethod
    def read(self) -> State: ...

    @abstractmethod
    def compare_and_set(self, expected_revision: int, state: State) -> State:
        """Store `state` with the next revision and return it as stored. Raises ConflictError when somebody else changed
        the state meanwhile, OSError when it cannot be written; then nothing has changed."""


class MemoryControlStore(ControlStore):
    """For tests and throw-away nodes: nothing survives."""

    def __init__(self) -> None:
        self._state = State()
        self._lock = threading.Lock()

    def read(self) -> State:
        return self._state

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        with self._lock:
            self._state = _successor(self._state, expected_revision, state)
            return self._state


class FileControlStore(ControlStore):
    """`state.json` in the state folder: the state and its SHA-256; the one before is kept beside it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "state.json"
        self._lock = threading.Lock()
        self._document: dict[str, Any] = _read_document(self._path)
        self._state = _decode(self._path, self._document)

    def read(self) -> State:
        return self._state

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        with self._lock:
            changed = _successor(self._state, expected_revision, state)
            document = _with_unknown_keys(
                msgspec.to_builtins(changed), self._document, msgspec.to_builtins(self._state)
            )
            self._write(document)
            self._document, self._state = document, changed
            return changed

    def _write(self, document: dict[str, Any]) -> None:
        """The new file is complete on disk before it takes the name of the old one."""
        raw = rfc8785.dumps({"sha256": _checksum(document), "state": document})
        draft = self._path.with_suffix(".draft")
        try:
            _write_synced(draft, raw)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        if self._path.exists():
            previous = self._path.with_suffix(".previous.json")
            previous.unlink(missing_ok=True)
            previous.hardlink_to(self._path)
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_synced(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _successor(current: State, expected_revision: int, state: State) -> State:
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


def _decode(path: Path, document: dict[str, Any]) -> State:
    schema = str(document.get("schema", SCHEMA))
    if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise SnapshotError(f"{path} has schema {schema}, this version reads {SCHEMA}; start the version that wrote it")
    try:
        return msgspec.convert(document, State)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"{path}: {error}; restore it from a backup, then start again") from None


def _checksum(document: dict[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(document)).hexdigest()


def _with_unknown_keys(new: Any, before: Any, known: Any) -> Any:
    """`new` plus what `before` had and this version does not know, at the same places; `known` is `before` as this
    version reads it. An entry of a list is at the same place while this version does not change it."""
    if new == known:
        return before
    if isinstance(new, dict) and isinstance(known, dict):
        unknown = {key: value for key, value in before.items() if key not in known}
        merged = {
            key: _with_unknown_keys(value, before[key], known[key]) if key in before else value
            for key, value in new.items()
        }
        return unknown | merged
    if isinstance(new, tuple) and isinstance(known, tuple):
        return [next((b for b, k in zip(before, known, strict=True) if k == item), item) for item in new]
    return new
