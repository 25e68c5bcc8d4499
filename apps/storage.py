"""Reads the source of an app: one file `<root>/<name>/<version>.py`, or a package `<root>/<name>/<version>/`.

All of it is read once, then digested: what runs is what was digested, whatever becomes of the files. The digest of a
file is its SHA-256; that of a package the SHA-256 of the RFC 8785 JSON of its files' SHA-256 by path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import rfc8785

ENTRY = "__init__.py"
MAX_FILES = 1_000
MAX_BYTES = 16 << 20
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class AppSourceError(Exception):
    """The storage holds no readable app of this name; the text names it and the reason, no path of the server."""


class MissingAppError(AppSourceError):
    """There is no app of this name and version."""


@dataclass(frozen=True, slots=True)
class AppSource:
    """`files`: contents by path; a single file's path is `__init__.py` too. `single`: it was one file."""

    name: str
    version: str
    single: bool
    files: Mapping[str, bytes]

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def path_of(self, path: str) -> str:
        """Where one of its files lies in a storage."""
        return f"{self.name}/{self.version}.py" if self.single else f"{self.name}/{self.version}/{path}"

    @property
    def digest(self) -> str:
        """In hexadecimal."""
        if self.single:
            return hashlib.sha256(self.files[ENTRY]).hexdigest()
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in self.files.items()}
        return hashlib.sha256(rfc8785.dumps(digests)).hexdigest()


class AppFiles(Protocol):
    """A storage of apps. Slow; raises AppSourceError, or what its storage raises."""

    def names(self, *folder: str) -> Mapping[str, bool]:
        """What is in a folder, and whether it is a folder; nothing when there is no such folder."""

    def read(self, path: Sequence[str], most: int) -> bytes:
        """At most one byte more than `most`."""


class LocalFiles(AppFiles):
    """A folder of this machine. Links in it are not followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, *folder: str) -> dict[str, bool]:
        try:
            return {path.name: path.is_dir() for path in self._root.joinpath(*folder).iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def read(self, path: Sequence[str], most: int) -> bytes:
        whole = self._root.joinpath(*path)
        if whole.resolve() != self._root.resolve().joinpath(*path) or not whole.is_file():
            raise AppSourceError(f"{'/'.join(path)} is a link or a device; apps are plain files")
        with whole.open("rb") as file:
            return file.read(most + 1)


def read_app(storage: AppFiles, name: str, version: str) -> AppSource:
    """Slow. Raises AppSourceError, or what the storage raises."""
    check_name(name, version)
    names = storage.names(name)
    is_file, is_package = names.get(f"{version}.py") is False, names.get(version) is True
    if is_file and is_package:
        raise AppSourceError(f"{name}:{version} is both a file and a package; remove one")
    if is_file:
        content = _read(storage, (name, f"{version}.py"), MAX_BYTES, f"{name}:{version}")
        return AppSource(name, version, True, {ENTRY: content})
    if is_package:
        return AppSource(name, version, False, _package(storage, name, version))
    there = ", ".join(_versions(storage, name, names))
    raise MissingAppError(f"no app {name}:{version} in apps.root" + (f"; there is {there}" if there else ""))


def check_name(name: str, version: str) -> None:
    """Raises AppSourceError."""
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise AppSourceError(
            f"{name!r}, {version!r} are no name and version of an app: use letters, digits, '_', '-', at most 64, "
            f"small letters in the name, '.' only in the version"
        )


def _versions(storage: AppFiles, name: str, names: Mapping[str, bool]) -> list[str]:
    """What versions of an app the storage holds."""
    files = {found.removesuffix(".py") for found, is_folder in names.items() if found.endswith(".py") and not is_folder}
    folders = {found for found, is_folder in names.items() if is_folder and ENTRY in storage.names(name, found)}
    return sorted(files | folders)


def _package(storage: AppFiles, name: str, version: str) -> dict[str, bytes]:
    """Without what Python and editors leave behind."""
    shown, left = f"{name}:{version}", MAX_BYTES
    files: dict[str, bytes] = {}
    folders: list[tuple[str, ...]] = [(name, version)]
    for folder in folders:  # which grows meanwhile
        for found, is_folder in sorted(storage.names(*folder).items()):
            if found == "__pycache__" or found.startswith("."):
                continue
            if len(folders) + len(files) > MAX_FILES:
                raise _too_large(shown)
            path = (*folder, found)
            if is_folder:
                folders.append(path)
            else:
                files["/".join(path[2:])] = content = _read(storage, path, left, shown)
                left -= len(content)
    if ENTRY not in files:
        raise AppSourceError(f"{shown} is a folder without {ENTRY}")
    return files


def _read(storage: AppFiles, path: Sequence[str], most: int, shown: str) -> bytes:
    content = storage.read(path, most)
    if len(content) > most:
        raise _too_large(shown)
    return content


def _too_large(shown: str) -> AppSourceError:
    return AppSourceError(f"{shown} is too large: {MAX_FILES} files of {MAX_BYTES} bytes together are allowed")
