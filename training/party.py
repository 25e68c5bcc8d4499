"""Settings of one party: a TOML file, overridden by `TESSERA_TRAIN_` variables, checked at once, frozen.

`TESSERA_TRAIN_TABLES__CUSTOMERS__PATH` is `tables.customers.path`. Relative paths start at the file's folder.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from training import catalog
from training.dsl import hint

PREFIX = "TESSERA_TRAIN_"
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Seconds = Annotated[float, Meta(gt=0, le=7 * 86_400)]


class PartyError(Exception):
    """The settings cannot be used. One problem a line: file or variable, key, reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class TableSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A CSV or Parquet file. Without `label_column` the table has no label."""

    path: Path
    id_column: str = "id"
    label_column: str = ""


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Another party: where it listens, host:port, and which components it may run with this party. `mean_partial`:
    as guest it may know the mean partial of the halves that this party publishes with it."""

    address: str
    consent: tuple[str, ...] = ()
    mean_partial: bool = False


class PartySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`listen` is host:port. `workers` are processes for heavy work. `receive_timeout_s` bounds the wait for any one
    message; `meet_timeout_s` the wait for the other parties to start the job."""

    party: Name
    listen: str = "127.0.0.1:8710"
    registry: Path
    work_dir: Path
    insecure: bool = False
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    receive_timeout_s: Seconds = 30.0
    meet_timeout_s: Seconds = 60.0
    tables: dict[Name, TableSettings] = {}
    peers: dict[Name, PeerSettings] = {}


def load(path: Path, environ: Mapping[str, str]) -> PartySettings:
    """Raises PartyError with everything that is wrong."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PartyError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PartyError([f"{path}: is not TOML: {error}"]) from None
    reader = _Reader(path)
    reader.overlay(tree, environ)
    settings: PartySettings | None = reader.struct(PartySettings, tree, ())
    if settings is not None:
        reader.problems += [f"{path}: {key}: {reason}" for key, reason in _contradictions(settings)]
    if settings is None or reader.problems:
        raise PartyError(reader.problems)
    return settings


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("must be host:port, e.g. 127.0.0.1:8710")
    return host.strip("[]"), int(port)


class _Reader:
    """Gathers problems while it reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._variables: dict[tuple[str, ...], str] = {}
        self.problems: list[str] = []

    def overlay(self, tree: dict[str, Any], environ: Mapping[str, str]) -> None:
        for variable in sorted(name for name in environ if name.startswith(PREFIX)):
            node = tree
            key: tuple[str, ...] = ()
            *parents, last = variable.removeprefix(PREFIX).split("__")
            for parent in parents:
                key = (*key, _spelling(parent, node))
                node = node.setdefault(key[-1], {})
                if not isinstance(node, dict):
                    self.problems.append(f"{variable}: {'.'.join(key)}: is a value, not a section")
                    break
            else:
                key = (*key, _spelling(last, node))
                node[key[-1]] = _scalar(environ[variable])
                self._variables[key] = variable

    def struct(self, kind: type[msgspec.Struct], tree: Any, key: tuple[str, ...]) -> Any:
        """An instance of `kind`, or None after a problem."""
        if not isinstance(tree, dict):
            return self._report(key, "must be a section")
        hints = get_type_hints(kind, include_extras=True)
        before = len(self.problems)
        for name in sorted(tree.keys() - hints.keys()):
            near = difflib.get_close_matches(name, hints, n=1)
            known = f"did you mean {near[0]}?" if near else f"known here: {', '.join(hints)}"
            self._report((*key, name), f"is not a setting; {known}")
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in tree:
                self._report((*key, field.name), "is missing")
        values = {name: self._value(hints[name], tree[name], (*key, name)) for name in hints if name in tree}
        return kind(**values) if len(self.problems) == before else None

    def _value(self, kind: Any, value: Any, key: tuple[str, ...]) -> Any:
        if get_origin(kind) is dict:
            return self._section(kind, value, key)
        try:
            if kind is Path:
                return self._path.parent.resolve() / msgspec.convert(value, Annotated[str, Meta(min_length=1)])
            return msgspec.convert(value, kind, strict=key not in self._variables)
        except msgspec.ValidationError as error:
            return self._report(key, str(error).replace("Expected", "must be").replace("`", ""))

    def _section(self, kind: Any, value: Any, key: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            return self._report(key, "must be a section")
        name_kind, entry_kind = get_args(kind)
        for name in value:
            self._value(name_kind, name, (*key, name))
        return {name: self.struct(entry_kind, entry, (*key, name)) for name, entry in value.items()}

    def _report(self, key: tuple[str, ...], reason: str) -> None:
        self.problems.append(f"{self._variables.get(key, self._path)}: {'.'.join(key)}: {reason}")


def _contradictions(settings: PartySettings) -> Iterator[tuple[str, str]]:
    if settings.party in settings.peers:
        yield f"peers.{settings.party}", "is this party itself"
    for name, peer in settings.peers.items():
        yield from _wrong_address(f"peers.{name}.address", peer.address)
        for module in peer.consent:
            if module not in catalog.modules():
                yield f"peers.{name}.consent", f"{module!r} is no component; {hint(module, catalog.modules())}"
    for name, table in settings.tables.items():
        if table.id_column == table.label_column:
            yield f"tables.{name}.label_column", f"{table.label_column!r} is the column of ids"
    yield from _wrong_address("listen", settings.listen)
    with contextlib.suppress(ValueError):
        host, _ = split_address(settings.listen)
        if not settings.insecure and not _is_loopback(host):
            yield "listen", f"{host} is not a loopback address and there is no TLS: set insecure = true to allow it"


def _wrong_address(key: str, address: str) -> Iterator[tuple[str, str]]:
    try:
        split_address(address)
    except ValueError as error:
        yield key, str(error)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _spelling(part: str, node: Mapping[str, Any]) -> str:
    """Variables cannot say '-' or '.'; a key of the file that reads the same is meant."""
    name = part.lower()
    return next((key for key in node if re.sub(r"[.-]", "_", key.lower()) == name), name)


def _scalar(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, list) else text
