"""Apps behind a URL. Those that were allowed are kept here, so that a restart needs no URL: their files are links into
the ContentStore that has those of models, too."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Set
from pathlib import Path

from apps.storage import AppFiles, AppSource, AppSourceError, LocalFiles, check_name, read_app
from loaders.artifact import FileEntry
from loaders.content import ContentStore
from loaders.registry import staging

Version = tuple[str, str]
"""Name of an app and version."""


class RemoteApps:
    """`in_use`: apps that are wanted, which make no room for others. Thread-safe; every method is slow."""

    def __init__(
        self, remote: AppFiles, local: Path, content: ContentStore, in_use: Callable[[], Set[Version]]
    ) -> None:
        self._remote = remote
        self._local = local
        self._content = content
        self._in_use = in_use
        content.spare(self._idle)

    def read(self, name: str, version: str, digest: str) -> AppSource:
        """What is kept here under this digest, else what the URL has now, whatever its digest; that alone for a digest
        of "". Raises AppSourceError, ArtifactError, and what the storage raises, OSError as a rule."""
        check_name(name, version)
        with self._content.exclusively():
            kept = self._kept(name, version, digest) if digest else None
        return kept or read_app(self._remote, name, version)

    def keep(self, source: AppSource) -> None:
        """Raises ArtifactError when there is no room."""
        root = kept_at(self._local, source.name, source.version, source.digest)
        with self._content.exclusively():
            if root.is_dir():
                return
            with staging(root) as draft:
                for path, content in source.files.items():
                    self._link(content, draft / source.path_of(path), f"{source}/{path}")

    def _kept(self, name: str, version: str, digest: str) -> AppSource | None:
        """What is damaged is removed."""
        root = kept_at(self._local, name, version, digest)
        try:
            source = read_app(LocalFiles(root), name, version)
        except AppSourceError:
            source = None
        if source is not None and source.digest == digest:
            os.utime(root)
            return source
        shutil.rmtree(root, ignore_errors=True)
        return None

    def _link(self, content: bytes, target: Path, shown: str) -> None:
        entry = FileEntry(hashlib.sha256(content).hexdigest(), len(content))
        self._content.make_room(entry)
        self._content.link(entry, lambda: io.BytesIO(content), target, shown)

    def _idle(self) -> Iterator[Path]:
        used = self._in_use()
        for root in self._local.glob("*/*/[!.]*"):
            if (root.parts[-3], root.parts[-2]) not in used:
                yield root


def kept_at(local: Path, name: str, version: str, digest: str) -> Path:
    """The root of a storage that has this app alone."""
    return local / name / version / digest
