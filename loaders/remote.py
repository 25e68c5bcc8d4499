"""A party's registry behind a URL, read through fsspec: halves are brought into a local registry when they are needed.

There their files are links into a ContentStore, so that what several versions share is copied once. Only plain
protocols that the operator allows are used, never chains of them, and paths lead nowhere but under the URL.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import shutil
from collections.abc import Callable, Collection, Iterator, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from loaders.artifact import MANIFEST, Artifact, ArtifactError, FileEntry, MissingHalfError
from loaders.content import ContentStore
from loaders.registry import find_half, half_files, install_half, open_half, version_path

MAX_MANIFEST_BYTES = 16 << 20
Version = tuple[str, str]
"""Name of a model and version."""


def location_problem(url: str, allowed: Collection[str]) -> str:
    """Why a registry may not be there; "" when it may, or is a path."""
    if "://" not in url:
        return ""
    protocol = url.partition("://")[0]
    if "::" in url:
        return "is a chain of protocols; name the place itself"
    if protocol not in allowed:
        return f"has protocol {protocol!r}; artifacts.protocols allows {', '.join(allowed) or 'none'}"
    return ""


class RemoteRegistry:
    """`in_use`: versions that are loaded or loading, which make no room for others. Thread-safe; every method is slow
    and raises what its storage raises, OSError as a rule."""

    def __init__(self, url: str, local: Path, content: ContentStore, in_use: Callable[[], Set[Version]]) -> None:
        """Raises ArtifactError when fsspec, or what it needs for the protocol, is not installed."""
        self._protocol = url.partition("://")[0]
        self._files: Any = _filesystem(self._protocol)
        self._root: str = self._files._strip_protocol(url)  # noqa: SLF001 - fsspec's own name for it
        self._local = local
        self._content = content
        self._in_use = in_use

    def check(self, model: str, version: str, party: str) -> None:
        """Raises MissingHalfError."""
        try:
            find_half(self._local, model, version, party)
        except MissingHalfError:
            self._find(model, version, party)

    def open(self, model: str, version: str, party: str) -> Artifact:
        """As `registry.open_half`. What is here and damaged is brought again."""
        with self._content.exclusively():
            try:
                artifact = open_half(self._local, model, version, party)
            except ArtifactError:
                self._discard(model, version, party)
                self._bring(model, version, party)
                artifact = open_half(self._local, model, version, party)
            os.utime(artifact.path)
            return artifact

    def _discard(self, model: str, version: str, party: str) -> None:
        try:
            half = find_half(self._local, model, version, party)
        except MissingHalfError:
            return
        if self._is_brought(half):
            shutil.rmtree(half)

    def _bring(self, model: str, version: str, party: str) -> None:
        remote = self._find(model, version, party)
        with self._open(f"{remote}/{MANIFEST}") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{model}/{version}/{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")

        def bring(name: str, entry: FileEntry, target: Path) -> None:
            self._make_room(entry)
            shown = f"{model}/{version}/{posixpath.basename(remote)}/{name}"
            self._content.link(entry, lambda: self._open(f"{remote}/{name}"), target, shown)

        install_half(version_path(self._local, model, version) / posixpath.basename(remote), raw, bring)

    def _find(self, model: str, version: str, party: str) -> str:
        """The folder of the party's half, whatever its role."""
        folder = posixpath.join(self._root, *version_path(Path(), model, version).parts)
        self._files.invalidate_cache()
        try:
            names = [posixpath.basename(path.rstrip("/")) for path in self._files.ls(folder, detail=False)]
        except FileNotFoundError:
            names = []
        found = sorted(name for name in names if not name.startswith(".") and name.partition("-")[2] == party)
        if not found:
            there = f"; there is {', '.join(sorted(names))}" if names else ""
            raise MissingHalfError(f"no half of {model}/{version} for party {party!r} in the registry{there}")
        if len(found) > 1:
            raise ArtifactError(f"{model}/{version} has two halves of party {party!r}; remove the wrong one")
        return f"{folder}/{found[0]}"

    def _open(self, path: str) -> AbstractContextManager[BinaryIO]:
        if self._protocol == "file" and not Path(path).resolve().is_relative_to(Path(self._root).resolve()):
            raise ArtifactError(f"{posixpath.basename(path)} leads out of the registry")
        opened: AbstractContextManager[BinaryIO] = self._files.open(path, "rb")
        return opened

    def _make_room(self, entry: FileEntry) -> None:
        """Remove halves that no loaded model uses, the least recently used first, until one more file fits."""
        if self._content.has(entry):
            return
        idle = self._idle_halves()
        while self._content.held_bytes + entry.bytes > self._content.max_bytes:
            half = next(idle, None)
            if half is None:
                raise ArtifactError(
                    f"a file of {entry.bytes} bytes does not fit into artifacts.max_bytes = {self._content.max_bytes}; "
                    f"halves of loaded models hold {self._content.held_bytes}"
                )
            shutil.rmtree(half)
            self._content.drop_unlinked()

    def _idle_halves(self) -> Iterator[Path]:
        used = self._in_use()
        halves = [path.parent for path in self._local.glob(f"*/*/[!.]*/{MANIFEST}")]
        idle = [half for half in halves if (half.parts[-3], half.parts[-2]) not in used and self._is_brought(half)]
        return iter(sorted(idle, key=lambda half: half.stat().st_mtime_ns))

    def _is_brought(self, half: Path) -> bool:
        """Whether it came from the URL: others, which FATE-Flow has sent, are nowhere else."""
        try:
            files = half_files(half)
        except ArtifactError:
            return False
        return any(self._content.holds(half / name, entry) for name, entry in files.items())


def _filesystem(protocol: str) -> Any:
    try:
        return importlib.import_module("fsspec").filesystem(protocol)
    except ImportError as error:
        raise ArtifactError(
            f"a registry at {protocol}:// needs the extra 'storage', and what fsspec needs for it: {error}"
        ) from None
