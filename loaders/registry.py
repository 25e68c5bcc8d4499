"""One party's registry: halves written in two phases, verified before anyone parses them, and aliases beside them.

Phase one stores a half and tells its digest; phase two, when every party has done so, writes the binding into the
manifest. A half without a binding does not load. Every write is a new folder or file, made durable, then renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import rfc8785

from loaders.artifact import (
    MANIFEST,
    SCHEMA,
    Artifact,
    ArtifactError,
    FileEntry,
    HalfRef,
    Manifest,
    MissingHalfError,
    oldest_schema,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,3}")
ALIASES = "aliases"
_BOUND = {"binding", "sealed"}
"""Keys of a manifest that binding adds."""


def write_half(root: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Phase one: store a half and return its digest. Storing the same half again changes nothing; another one takes the
    place of a half that was never bound, and is refused with ArtifactError where one is bound."""
    entries = {name: FileEntry(hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()}
    complete = msgspec.structs.replace(manifest, files=entries, binding=None, sealed=None)
    document = {**msgspec.to_builtins(complete), "schema": oldest_schema(complete)}
    target = half_path(root, manifest.model, manifest.version, manifest.role, manifest.party)
    for name in files:
        _check_file_name(name)
    digest = digest_of(document)
    if target.exists():
        _make_way(target, digest)
    if not target.exists():
        with staging(target) as draft:
            for name, content in files.items():
                _write(draft / name, content)
            _write(draft / MANIFEST, rfc8785.dumps(document))
    if digest_of(_document(target)) != digest:
        raise ArtifactError(f"{_shown(target)} holds another half already: publish under a new version")
    return digest


def _make_way(target: Path, digest: str) -> None:
    """Put aside what a job left that did not finish publishing. A bound half never makes way, nor does the same one."""
    try:
        present = _document(target)
    except ArtifactError:
        return
    if present.get("binding") is None and digest_of(present) != digest:
        aside = Path(tempfile.mkdtemp(prefix=".unbound-", dir=target.parent))
        target.rename(aside / target.name)
        shutil.rmtree(aside)


def bind(half: Path, binding: Sequence[HalfRef]) -> str:
    """Phase two: write the binding of all parties' halves into the half at `half`; returns the binding's digest."""
    document = _document(half)
    own = HalfRef(document["role"], document["party"], document.get("identity") or digest_of(document))
    entries = sorted(binding)
    if own not in entries:
        raise ArtifactError(f"{_shown(half)}: the binding does not name this half, {own.half_digest[:12]}")
    if len({(entry.role, entry.party) for entry in entries}) != len(entries):
        raise ArtifactError(f"{_shown(half)}: the binding names a party twice")
    builtin = msgspec.to_builtins(entries)
    if document.get("binding") not in (None, builtin):
        raise ArtifactError(f"{_shown(half)} is bound already, and a bound half never changes")
    document["binding"] = builtin
    if "identity" in document:
        document["sealed"] = digest_of(document)
    _replace(half / MANIFEST, rfc8785.dumps(document), half.parent)
    return hashlib.sha256(rfc8785.dumps(builtin)).hexdigest()


def open_half(root: Path, model: str, version: str, party: str) -> Artifact:
    """The party's half of a version, verified byte by byte. Raises ArtifactError."""
    half = find_half(root, model, version, party)
    document = _document(half)
    manifest = _manifest(half, document)
    digest = digest_of(document)
    if (manifest.model, manifest.version) != (model, version) or manifest.party != party:
        raise ArtifactError(
            f"{_shown(half)}/{MANIFEST} is of {manifest.model}/{manifest.version} and party {manifest.party!r}"
        )
    if manifest.binding is None:
        raise ArtifactError(f"{_shown(half)} is not bound: its job did not finish publishing")
    sealed = manifest.sealed == digest if manifest.identity else manifest.sealed is None
    if not sealed or HalfRef(manifest.role, party, manifest.identity or digest) not in manifest.binding:
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} has been changed: its digest is not the one in the binding")
    _verify_files(half, manifest)
    binding = hashlib.sha256(rfc8785.dumps(msgspec.to_builtins(manifest.binding))).hexdigest()
    return Artifact(half, manifest, digest, binding)


def find_half(root: Path, model: str, version: str, party: str) -> Path:
    """The folder `<role>-<party>` of a version, whatever the role. Raises ArtifactError."""
    folder = version_path(root, model, version)
    found = sorted(folder.glob(f"[!.]*-{_named('party', party)}")) if folder.is_dir() else []
    found = [half for half in found if half.name.split("-", 1)[1] == party]
    if not found:
        others = sorted(half.name for half in folder.glob("[!.]*"))
        there = f"; there is {', '.join(others)}" if others else ""
        raise MissingHalfError(f"no half of {model}/{version} for party {party!r} in the registry{there}")
    if len(found) > 1:
        raise ArtifactError(f"{model}/{version} has two halves of party {party!r}; remove the wrong one")
    if not found[0].resolve().is_relative_to(root.resolve()):
        raise ArtifactError(f"{_shown(found[0])} leads out of the registry")
    return found[0]


def half_files(half: Path) -> Mapping[str, FileEntry]:
    """What the manifest of a half lists. Raises ArtifactError."""
    return _manifest(half, _document(half)).files


def install_half(target: Path, manifest: bytes, bring: Callable[[str, FileEntry, Path], None]) -> None:
    """Store a half that is bound already, at `target` of a local registry: `bring` puts each file in its place, given
    its name and what it must be. Raises ArtifactError, and then nothing is stored."""
    with staging(target) as draft:
        _write(draft / MANIFEST, manifest)
        for name, entry in half_files(draft).items():
            bring(name, entry, draft / name)


def newest_version(root: Path, model: str) -> str:
    """The version of a model that came into this registry last. Raises MissingHalfError."""
    versions = _versions(root / _named("model", model))
    if not versions:
        raise MissingHalfError(f"no version of {model} in the registry")
    return max(versions, key=lambda one: (one.stat().st_mtime_ns, one.name)).name


def stored(root: Path, party: str) -> list[tuple[str, str]]:
    """Model and version of every half of this party, in order. None of them is opened."""
    models = sorted(one for one in root.glob("[!.]*") if one.is_dir())
    versions = [version for model in models for version in sorted(_versions(model))]
    return [(one.parent.name, one.name) for one in versions if any(_is_of(half, party) for half in one.iterdir())]


def _versions(model: Path) -> list[Path]:
    """The folders of a model's versions; none where there is no such model."""
    return [one for one in model.glob("[!.]*") if one.is_dir() and one.name != ALIASES]


def _is_of(half: Path, party: str) -> bool:
    return not half.name.startswith(".") and half.name.partition("-")[2] == party


def set_alias(root: Path, model: str, alias: str, version: str) -> None:
    """Let `alias` mean `version` of the model at this party."""
    if not version_path(root, model, version).is_dir():
        raise ArtifactError(f"alias {alias!r}: there is no {model}/{version} in the registry")
    record = root / _named("model", model) / ALIASES / _named("alias", alias)
    record.parent.mkdir(parents=True, exist_ok=True)
    _replace(record, version.encode(), record.parent)
    _sync(record.parent.parent)


def resolve_alias(root: Path, model: str, alias: str) -> str:
    try:
        return (root / _named("model", model) / ALIASES / _named("alias", alias)).read_text()
    except FileNotFoundError:
        raise ArtifactError(f"model {model!r} has no alias {alias!r}") from None


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of the RFC 8785 JSON of a manifest as it was before it was bound. Keys that this version does not know
    count."""
    return hashlib.sha256(rfc8785.dumps({key: document[key] for key in document if key not in _BOUND})).hexdigest()


def version_path(root: Path, model: str, version: str) -> Path:
    return root / _named("model", model) / _named("version", version)


def half_path(root: Path, model: str, version: str, role: str, party: str) -> Path:
    return version_path(root, model, version) / f"{_named('role', role)}-{_named('party', party)}"


def _named(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name) or (kind == "version" and name == ALIASES):
        raise ArtifactError(f"{kind} {name!r} is not a name: use letters, digits, '.', '_', '-', at most 128")
    return name


def _check_file_name(name: str) -> None:
    if not _FILE.fullmatch(name) or name == MANIFEST:
        raise ArtifactError(f"{name!r} cannot be a file of an artifact")


def _document(half: Path) -> dict[str, Any]:
    try:
        raw = (half / MANIFEST).read_bytes()
        document: object = msgspec.json.decode(raw)
    except FileNotFoundError:
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} is missing") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} is not JSON: {error}") from None
    except RecursionError:
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} is nested too deeply") from None
    if not isinstance(document, dict):
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} is not a JSON object")
    if not _is_canonical(document, raw):
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} has been changed: it is not in canonical form (RFC 8785)")
    return document


def _is_canonical(document: dict[str, Any], raw: bytes) -> bool:
    try:
        return rfc8785.dumps(document) == raw
    except (rfc8785.CanonicalizationError, RecursionError):  # numbers that JSON readers do not agree on
        return False


def _manifest(half: Path, document: Mapping[str, Any]) -> Manifest:
    schema = str(document.get("schema", ""))
    if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise ArtifactError(f"{_shown(half)}/{MANIFEST} has schema {schema!r}, this version reads {SCHEMA}")
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise ArtifactError(f"{_shown(half)}/{MANIFEST}: {error}") from None
    for name in manifest.files:
        _check_file_name(name)
    return manifest


def _verify_files(half: Path, manifest: Manifest) -> None:
    present = {str(path.relative_to(half)) for path in half.rglob("*") if not path.is_dir() or path.is_symlink()}
    for name in sorted(present - manifest.files.keys() - {MANIFEST}):
        raise ArtifactError(f"{_shown(half)}/{name} is not in the manifest")
    for name, entry in manifest.files.items():
        path = half / name
        if name not in present:
            raise ArtifactError(f"{_shown(half)}/{name} is missing")
        if path.resolve() != half.resolve() / name or not path.is_file():
            raise ArtifactError(f"{_shown(half)}/{name} is a link or a device; artifacts hold plain files")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stat().st_size != entry.bytes or digest != entry.sha256:
            raise ArtifactError(f"{_shown(half)}/{name} is corrupt: its SHA-256 is not the one in the manifest")


def _shown(half: Path) -> str:
    """Model, version and half: what a message may say of a path."""
    return "/".join(half.parts[-3:])


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A draft folder that becomes `target` when all of it is on disk, unless somebody else was faster."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    try:
        yield draft
        draft.chmod(0o755)
        for folder in (*(path for path in draft.rglob("*") if path.is_dir()), draft):
            _sync(folder)
        try:
            draft.rename(target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        for folder in target.parents[:3]:  # version, model, registry: each may be new
            _sync(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(path: Path, content: bytes, drafts: Path) -> None:
    """The draft lies in `drafts`: what a killed process leaves of it must not lie in a half, which would not open."""
    draft = drafts / f".{path.name}.{secrets.token_hex(8)}"
    try:
        _write(draft, content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
