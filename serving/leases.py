"""Work that one replica of a party does at a time, and what it notes for the one that comes after it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from serving.disk import sync_folder, write_synced


class LeaseLostError(Exception):
    """Another replica has taken the work over."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do the work `name`. `token` rises with every holder: what an earlier one writes is refused by it."""

    name: str
    holder: str
    token: int


class Leases(ABC):
    """Thread-safe. Every method waits for a disk or a network and raises OSError when that fails."""

    @abstractmethod
    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """None while anybody's lease of this name lasts."""

    @abstractmethod
    def renew(self, lease: Lease, ttl_s: float) -> None:
        """Have it last so long from now. Raises LeaseLostError when it ended and somebody else took it."""

    @abstractmethod
    def note(self, lease: Lease, notes: bytes) -> None:
        """Replace the notes of the work. Raises LeaseLostError as `renew` does, with nothing changed."""

    @abstractmethod
    def notes(self, name: str) -> bytes:
        """Empty until somebody noted something."""

    def release(self, lease: Lease) -> None:
        """Let others have it at once; nothing when it is lost already."""
        with contextlib.suppress(LeaseLostError):
            self.renew(lease, 0.0)


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    token: int = 0
    holder: str = ""
    expires_s: float = 0.0
    notes: bytes = b""


msgspec.json.Decoder(_Work)  # see loaders/artifact.py

_Edit = Callable[[_Work], _Work]


class _LocalLeases(Leases):
    """Of one machine, by its own clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    @abstractmethod
    def _read(self, name: str) -> _Work: ...

    @abstractmethod
    def _change(self, name: str, edit: _Edit) -> _Work:
        """What `edit` makes of the work, kept; nobody else changes it meanwhile."""

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        now_s, taken = self._clock(), False

        def take(work: _Work) -> _Work:
            nonlocal taken
            taken = work.expires_s <= now_s
            changed = {"token": work.token + 1, "holder": holder, "expires_s": now_s + ttl_s}
            return msgspec.structs.replace(work, **changed) if taken else work

        work = self._change(name, take)
        return Lease(name, holder, work.token) if taken else None

    def renew(self, lease: Lease, ttl_s: float) -> None:
        expires_s = self._clock() + ttl_s
        self._change(lease.name, lambda work: msgspec.structs.replace(_of(work, lease), expires_s=expires_s))

    def note(self, lease: Lease, notes: bytes) -> None:
        self._change(lease.name, lambda work: msgspec.structs.replace(_of(work, lease), notes=notes))

    def notes(self, name: str) -> bytes:
        return self._read(name).notes


def _of(work: _Work, lease: Lease) -> _Work:
    if work.token != lease.token:
        raise LeaseLostError(f"{work.holder!r} has taken over {lease.name!r} from {lease.holder!r}")
    return work


class MemoryLeases(_LocalLeases):
    """Of one process; nothing survives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._works: dict[str, _Work] = {}
        self._lock = threading.Lock()

    def _read(self, name: str) -> _Work:
        return self._works.get(name, _Work())

    def _change(self, name: str, edit: _Edit) -> _Work:
        with self._lock:
            self._works[name] = edit(self._read(name))
            return self._works[name]


class FileLeases(_LocalLeases):
    """A file for each name in a folder that the workers of one machine share. `clock` is Unix seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._folder = folder

    def _read(self, name: str) -> _Work:
        path = self._path(name)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Work)
        except FileNotFoundError:
            return _Work()
        except msgspec.MsgspecError:
            raise OSError(errno.EINVAL, f"{path} is corrupt; remove it, and the work starts anew") from None

    def _change(self, name: str, edit: _Edit) -> _Work:
        path = self._path(name)
        with self._exclusively(path):
            before = self._read(name)
            work = edit(before)
            if work is not before:
                draft = path.with_suffix(".draft")
                write_synced(draft, msgspec.json.encode(work))
                draft.replace(path)
                sync_folder(self._folder)
        return work

    def _path(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.json"

    @contextlib.contextmanager
    def _exclusively(self, path: Path) -> Iterator[None]:
        self._folder.mkdir(exist_ok=True)
        with path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
