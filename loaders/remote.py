"""A party's registry behind a URL: halves are brought into a local registry when they are needed.

There their files are links into a ContentStore, so that what several versions share is copied once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from loaders.artifact import MANIFEST, Artifact, ArtifactError, FileEntry, MissingHalfError
from loaders.content import ContentStore
from loaders.registry import find_half, half_files, install_half, open_half, version_path
from loaders.remote_folder import RemoteFolder

MAX_MANIFEST_BYTES = 16 << 20
Version = tuple[str, str]
"""Name of a model and version."""


class RemoteRegistry:
    """`in_use`: versions that are loaded or loading, which make no room for others. Thread-safe; every method is slow
    and raises what its storage raises, OSError as a rule."""

    def __init__(
        self, remote: RemoteFolder, local: Path, content: ContentStore, in_use: Callable[[], Set[Version]]
    ) -> None:
        self._remote = remote
        self._local = local
        self._content = content
        self._in_use = in_use
        content.spare(self._idle_halves)

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
        half = self._find(model, version, party)
        raw = self._remote.read((model, version, half, MANIFEST), MAX_MANIFEST_BYTES)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{model}/{version}/{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes")

        def bring(name: str, entry: FileEntry, target: Path) -> None:
            self._content.make_room(entry)
            shown = f"{model}/{version}/{half}/{name}"
            self._content.link(entry, lambda: self._remote.open(model, version, half, name), target, shown)

        install_half(version_path(self._local, model, version) / half, raw, bring)

    def _find(self, model: str, version: str, party: str) -> str:
        """The folder's name of the party's half, whatever its role."""
        names = self._remote.names(*version_path(Path(), model, version).parts)
        found = sorted(name for name in names if not name.startswith(".") and name.partition("-")[2] == party)
        if not found:
            there = f"; there is {', '.join(sorted(names))}" if names else ""
            raise MissingHalfError(f"no half of {model}/{version} for party {party!r} in the registry{there}")
        if len(found) > 1:
            raise ArtifactError(f"{model}/{version} has two halves of party {party!r}; remove the wrong one")
        return found[0]

    def _idle_halves(self) -> Iterator[Path]:
        used = self._in_use()
        for half in [path.parent for path in self._local.glob(f"*/*/[!.]*/{MANIFEST}")]:
            if (half.parts[-3], half.parts[-2]) not in used and self._is_brought(half):
                yield half

    def _is_brought(self, half: Path) -> bool:
        """Whether it came from the URL: others, which FATE-Flow has sent, are nowhere else."""
        try:
            files = half_files(half)
        except ArtifactError:
            return False
        return any(self._content.holds(half / name, entry) for name, entry in files.items())
