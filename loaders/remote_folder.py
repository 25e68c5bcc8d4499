"""A folder behind a URL, read through fsspec. Only plain protocols that the operator allows are used, never chains of
them, and paths lead nowhere but under the URL."""

from __future__ import annotations

import importlib
import posixpath
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from loaders.artifact import ArtifactError


def location_problem(url: str, allowed: Collection[str]) -> str:
    """Why a folder may not be there; "" when it may, or is a path."""
    if "://" not in url:
        return ""
    protocol = url.partition("://")[0]
    if "::" in url:
        return "is a chain of protocols; name the place itself"
    if protocol not in allowed:
        return f"has protocol {protocol!r}; artifacts.protocols allows {', '.join(allowed) or 'none'}"
    return ""


class RemoteFolder:
    """Thread-safe; every method is slow and raises what its storage raises, OSError as a rule. Names given must be
    checked ones."""

    def __init__(self, url: str) -> None:
        """Raises ArtifactError when fsspec, or what it needs for the protocol, is not installed."""
        self._protocol = url.partition("://")[0]
        self._files: Any = _filesystem(self._protocol)
        self._root: str = self._files._strip_protocol(url)  # noqa: SLF001 - fsspec's own name for it

    def names(self, *folder: str) -> dict[str, bool]:
        """What is in a folder, as it is now, and whether it is a folder; nothing when there is no such folder. Links by
        which index pages are sorted are left out."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(posixpath.join(self._root, *folder), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        named = {posixpath.basename(one["name"].rstrip("/")): one["type"] == "directory" for one in found}
        return {name: is_folder for name, is_folder in named.items() if not name.startswith("?")}

    def open(self, *path: str) -> AbstractContextManager[BinaryIO]:
        """Raises ArtifactError when the path leads out of the folder."""
        whole = posixpath.join(self._root, *path)
        if self._protocol == "file" and not Path(whole).resolve().is_relative_to(Path(self._root).resolve()):
            raise ArtifactError(f"{path[-1]} leads out of its storage")
        opened: AbstractContextManager[BinaryIO] = self._files.open(whole, "rb")
        return opened

    def read(self, path: Sequence[str], most: int) -> bytes:
        """At most one byte more than `most`."""
        kept = bytearray()
        with self.open(*path) as file:
            while len(kept) <= most and (chunk := file.read(most + 1 - len(kept))):
                kept += chunk
        return bytes(kept)


def _filesystem(protocol: str) -> Any:
    try:
        return importlib.import_module("fsspec").filesystem(protocol)
    except ImportError as error:
        raise ArtifactError(
            f"a storage at {protocol}:// needs the extra 'storage', and what fsspec needs for it: {error}"
        ) from None
