"""Files by their SHA-256 in one folder, copied once, checked, and bounded in bytes together."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from loaders.artifact import ArtifactError, FileEntry

OpenFile = Callable[[], contextlib.AbstractContextManager[BinaryIO]]
Idle = Callable[[], Iterable[Path]]
"""Folders of links that nobody uses now and that can be brought again."""
_CHUNK = 1 << 20


class ContentStore:
    """`<folder>/<sha256>`; who needs a file has a hard link to it. The processes of one machine may share the folder,
    in turns: `exclusively`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._idle: list[Idle] = []

    def spare(self, idle: Idle) -> None:
        """From now on these make room for others."""
        self._idle.append(idle)

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def held_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    def has(self, entry: FileEntry) -> bool:
        path = self.folder / entry.sha256
        return path.is_file() and path.stat().st_size == entry.bytes

    def link(self, entry: FileEntry, source: OpenFile, target: Path, name: str) -> None:
        """Put a file at `target`, copied from `source` unless it is here. Raises ArtifactError naming it when it is not
        what the entry says."""
        path = self.folder / entry.sha256
        if not self.has(entry) or _digest(path) != entry.sha256:
            self._copy(entry, source, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)

    def make_room(self, entry: FileEntry) -> None:
        """Remove idle folders, the least recently used first, until one more file fits. Raises ArtifactError."""
        if self.has(entry):
            return
        idle = iter(sorted([folder for one in self._idle for folder in one()], key=lambda one: one.stat().st_mtime_ns))
        while self.held_bytes + entry.bytes > self.max_bytes:
            folder = next(idle, None)
            if folder is None:
                raise ArtifactError(
                    f"a file of {entry.bytes} bytes does not fit into artifacts.max_bytes = {self.max_bytes}; "
                    f"what is loaded holds {self.held_bytes}"
                )
            shutil.rmtree(folder)
            self.drop_unlinked()

    def holds(self, path: Path, entry: FileEntry) -> bool:
        """Whether a file is a link to the one here."""
        own = self.folder / entry.sha256
        return own.is_file() and path.is_file() and path.samefile(own)

    def drop_unlinked(self) -> None:
        """Remove what nobody has a link to."""
        for path in self._files():
            if path.stat().st_nlink == 1:
                path.unlink()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("[!.]*") if path.is_file()]

    def _copy(self, entry: FileEntry, source: OpenFile, name: str) -> None:
        draft = self.folder / f".draft-{secrets.token_hex(8)}"
        try:
            with source() as reader, draft.open("wb") as writer:
                digest, size = hashlib.sha256(), 0
                while size <= entry.bytes and (chunk := reader.read(_CHUNK)):
                    digest.update(chunk)
                    size += len(chunk)
                    writer.write(chunk)
                writer.flush()
                os.fsync(writer.fileno())
            if size != entry.bytes or digest.hexdigest() != entry.sha256:
                raise ArtifactError(f"{name} is corrupt: its SHA-256 is not the one in the manifest")
            draft.replace(self.folder / entry.sha256)
        finally:
            draft.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
