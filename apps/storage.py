"""Reads the source of an app: one file `<root>/<name>/<version>.py`, or a package `<root>/<name>/<version>/`.

All of it is read once, then digested: what runs is what was digested, whatever becomes of the files. The digest of a
file is its SHA-256; that of a package the SHA-256 of the RFC 8785 JSON of its files' SHA-256 by path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

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

    @property
    def digest(self) -> str:
        """In hexadecimal."""
        if self.single:
            return hashlib.sha256(self.files[ENTRY]).hexdigest()
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in self.files.items()}
        return hashlib.sha256(rfc8785.dumps(digests)).hexdigest()


def read_app(root: Path, name: str, version: str) -> AppSource:
    """Slow. Raises AppSourceError, or OSError when a file cannot be read."""
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise AppSourceError(
            f"{name!r}, {version!r} are no name and version of an app: use letters, digits, '_', '-', at most 64, "
            f"small letters in the name, '.' only in the version"
        )
    folder = root / name
    file, package = folder / f"{version}.py", folder / version
    if file.is_file() and not package.is_dir():
        return AppSource(name, version, True, {ENTRY: _read(root, file)})
    if package.is_dir() and not file.exists():
        return AppSource(name, version, False, _package(root, package, f"{name}:{version}"))
    if file.exists():
        raise AppSourceError(f"{name}:{version} is both a file and a package; remove one")
    there = ", ".join(versions(root, name))
    raise MissingAppError(f"no app {name}:{version} in apps.root" + (f"; there is {there}" if there else ""))


def versions(root: Path, name: str) -> list[str]:
    """What versions of an app the storage holds."""
    folder = root / name
    found = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob(f"*/{ENTRY}")}
    return sorted(found)


def _package(root: Path, package: Path, shown: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = MAX_BYTES
    for path in _files(package):
        left -= path.stat().st_size
        if left < 0 or len(files) == MAX_FILES:
            raise AppSourceError(f"{shown} is too large: {MAX_FILES} files of {MAX_BYTES} bytes together are allowed")
        files[path.relative_to(package).as_posix()] = _read(root, path)
    if ENTRY not in files:
        raise AppSourceError(f"{shown} is a folder without {ENTRY}")
    return files


def _files(package: Path) -> Iterator[Path]:
    """Of a package, in a fixed order; without what Python and editors leave behind."""
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package).parts
        if not any(part == "__pycache__" or part.startswith(".") for part in inside) and not path.is_dir():
            yield path


def _read(root: Path, path: Path) -> bytes:
    if path.resolve() != root.resolve() / path.relative_to(root) or not path.is_file():
        raise AppSourceError(f"{path.relative_to(root)} is a link or a device; apps are plain files")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise AppSourceError(f"{path.relative_to(root)} is too large: {MAX_BYTES} bytes are allowed")
    return content
