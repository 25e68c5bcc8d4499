"""Reads settings. Every problem names the file or variable, the key and the reason; all are reported at once."""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from serving import security
from serving.setting_kinds import Text
from serving.settings import CacheSettings, FallbackPolicy, PeerProtocol, Settings

PREFIX = "TESSERA_"
# What the commands read, and what Kubernetes sets in every pod beside a service that is named tessera.
_NO_SETTINGS = re.compile(r"^TESSERA_(CLIENT_TOKEN|CONFIG|SERVICE_(HOST|PORT\w*)|PORT(_\d+_\w+)?)$")


class SettingsError(Exception):
    """The settings cannot be used. One problem a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Given(NamedTuple):
    """A value and the file or variable that it comes from. `text`: as it stands in the environment."""

    value: Any
    origin: str
    text: str | None = None


def _check_cron(expression: str) -> None:
    from serving.timetable import check_cron  # noqa: PLC0415 - only settings with a schedule pay for the library

    check_cron(expression)


def _check_zone(name: str) -> None:
    from serving.timetable import check_zone  # noqa: PLC0415

    check_zone(name)


_CHECKS: dict[Text, Callable[[str], object]] = {
    Text.ADDRESS: security.split_address,
    Text.CRON: _check_cron,
    Text.ZONE: _check_zone,
}
# Keys to values, or to trees of the same kind.
_Tree = dict[str, Any]


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError."""
    reader = _Reader(path)
    tree = reader.file()
    reader.overlay(tree, environ)
    settings: Settings = reader.struct(Settings, tree, ())
    if not reader.problems:
        reader.problems += [f"{path}: {key}: {reason}" for key, reason in _contradictions(settings)]
    if reader.problems:
        raise SettingsError(reader.problems)
    return settings


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    yield from security.check_binds(settings)
    yield from security.check_tls(settings)
    yield from security.check_single(settings)
    for name, principal in settings.principals.items():
        if bool(principal.certificate) == bool(principal.token_sha256):
            yield f"principals.{name}", "needs either a certificate or a token_sha256"
    yield from _places(settings)
    if settings.party in settings.peers:
        yield f"peers.{settings.party}", "is this party itself"
    for name, source in settings.features.items():
        for lacking in source.lacking():
            yield f"features.{name}.{lacking}", f"is missing; kind {source.kind.value!r} needs it"
    yield from _fallbacks(settings)
    yield from _hedges(settings)
    yield from _schedule(settings)
    yield from _fate(settings)
    if settings.plaintext_caller and settings.plaintext_caller not in settings.peers:
        yield "plaintext_caller", f"{settings.plaintext_caller!r} is not among peers"


def _fate(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, peer in settings.peers.items():
        key = settings.fate.keys.get(peer.app_key)
        if peer.app_key and (key is None or key.party != settings.party):
            yield f"peers.{name}.app_key", f"{peer.app_key!r} is no key of fate.keys whose party is this one"
    if settings.fate.unary_over_http and all(key.party == settings.party for key in settings.fate.keys.values()):
        yield "fate.unary_over_http", "needs fate.keys of other parties: a packet's signature tells whose it is"
    if settings.fate.keys and _caches_apart(settings):
        yield "fate.keys", "several processes remember signed packets together in one cache: set cache.url"


def _caches_apart(settings: Settings) -> bool:
    """Whether this party's processes have several caches, or none."""
    alone = settings.workers > 1 and not settings.cache.embedded
    return not settings.cache.url and (alone or bool(settings.control.url))


def _schedule(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.warmup.schedule and not settings.warmup.count:
        yield "warmup.schedule", "needs warmup.count: nobody knows who is active"
    if settings.warmup.schedule and _caches_apart(settings):
        yield "warmup.schedule", "one process warms the cache of all: set cache.url"


def _places(settings: Settings) -> Iterator[tuple[str, str]]:
    places = {"registry": settings.registry, "apps.root": settings.apps.root}
    if not any("://" in place for place in places.values()):
        return
    from loaders.remote_folder import location_problem  # noqa: PLC0415 - only what is behind a URL pays for arrays

    for key, place in places.items():
        if problem := location_problem(place, settings.artifacts.protocols):
            yield key, problem


def _hedges(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, peer in settings.peers.items():
        if peer.hedge_address and (not peer.address or peer.protocol is not PeerProtocol.TESSERA):
            yield f"peers.{name}.hedge_address", "needs an address, and protocol 'tessera'"


def _fallbacks(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, fallback in settings.fallbacks.items():
        if (fallback.policy is FallbackPolicy.DEFAULT) != (fallback.score is not None):
            yield f"fallbacks.{name}.score", "goes with policy 'default', and only with it"
        if fallback.policy is FallbackPolicy.STALE and not settings.cache.stale_s:
            yield f"fallbacks.{name}.policy", "is stale, which needs cache.stale_s"
        if fallback.policy is FallbackPolicy.STALE and not _keeps_partials(settings.cache):
            yield f"fallbacks.{name}.policy", "is stale, which needs a level for partials: see cache.remote_ttl_s"


def _keeps_partials(cache: CacheSettings) -> bool:
    return bool(cache.remote_ttl_s or cache.url or cache.embedded)


class _Reader:
    """Gathers problems while it reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[str] = []

    def file(self) -> _Tree:
        try:
            return _given(tomllib.loads(self._path.read_text(encoding="utf-8")), str(self._path))
        except OSError as error:
            raise SettingsError([f"{self._path}: cannot be read: {error.strerror}"]) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError([f"{self._path}: is not TOML: {error}"]) from None

    def overlay(self, tree: _Tree, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            if not variable.startswith(PREFIX) or _NO_SETTINGS.match(variable):
                continue
            *parents, last = variable.removeprefix(PREFIX).split("__")
            node = tree
            for parent in parents:
                node = node.setdefault(_spelling(parent, node), {})
                if not isinstance(node, dict):
                    self.problems.append(f"{variable}: {parent.lower()} is a value, not a section")
                    break
            else:
                text = environ[variable]
                node[_spelling(last, node)] = _Given(_scalar(text), variable, text)

    def struct(self, kind: type[msgspec.Struct], tree: _Tree, key: tuple[str, ...]) -> Any:
        """An instance of `kind`, or None after a problem."""
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        hints = get_type_hints(kind, include_extras=True)
        before = len(self.problems)
        for name in tree.keys() - fields.keys():
            self._unknown((*key, name), tree[name], list(fields))
        values = {name: self._value(hints[name], tree[name], (*key, name)) for name in fields if name in tree}
        for name, field in fields.items():
            if field.required and name not in tree:
                self.problems.append(f"{self._path}: {'.'.join((*key, name))}: is missing")
        return kind(**values) if len(self.problems) == before else None

    def _value(self, kind: Any, found: Any, key: tuple[str, ...]) -> Any:
        is_table = isinstance(found, dict)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(kind, found, key) if is_table else self._report(key, found, "must be a section")
        if get_origin(kind) is dict:
            return self._table(kind, found, key) if is_table else self._report(key, found, "must be a section")
        return self._report(key, _first(found), "must be a value") if is_table else self._leaf(kind, found, key)

    def _table(self, kind: Any, tree: _Tree, key: tuple[str, ...]) -> dict[str, Any]:
        name_kind, value_kind = get_args(kind)
        for name, found in tree.items():
            self._leaf(name_kind, _Given(name, _first(found).origin), (*key, name))
        return {name: self._value(value_kind, found, (*key, name)) for name, found in tree.items()}

    def _leaf(self, kind: Any, given: _Given, key: tuple[str, ...]) -> Any:
        try:
            value = _convert(kind, given)
        except msgspec.ValidationError as error:
            return self._report(key, given, _reason(kind, error))
        meaning = _meta(kind, "extra", {}).get("text")
        is_url = meaning is Text.PLACE and "://" in value
        if value and meaning in {Text.PATH, Text.PLACE} and not is_url:
            return str(self._path.parent.resolve() / value)
        if meaning in _CHECKS and value:
            self._check(_CHECKS[meaning], value, given, key)
        return value

    def _check(self, check: Callable[[str], object], value: str, given: _Given, key: tuple[str, ...]) -> None:
        try:
            check(value)
        except ValueError as error:
            self._report(key, given, str(error))

    def _unknown(self, key: tuple[str, ...], found: Any, known: list[str]) -> None:
        near = difflib.get_close_matches(key[-1], known, n=1)
        hint = f"; did you mean {'.'.join((*key[:-1], near[0]))}?" if near else f"; known here: {', '.join(known)}"
        self._report(key, _first(found), f"is not a setting{hint}")

    def _report(self, key: tuple[str, ...], found: Any, reason: str) -> None:
        self.problems.append(f"{found.origin}: {'.'.join(key)}: {reason}")


def _given(tree: Mapping[str, Any], origin: str) -> _Tree:
    return {
        key: _given(value, origin) if isinstance(value, dict) else _Given(value, origin) for key, value in tree.items()
    }


def _first(found: Any) -> _Given:
    """Some value under here, for its origin."""
    while isinstance(found, dict):
        found = next(iter(found.values()), _Given(None, "settings"))
    return found if isinstance(found, _Given) else _Given(None, "settings")


def _spelling(part: str, node: _Tree) -> str:
    """Environment names cannot say '-' or '.'; a key of the file that reads the same is meant."""
    name = part.lower()
    return next((key for key in node if re.sub(r"[.-]", "_", key.lower()) == name), name)


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _convert(kind: Any, given: _Given) -> Any:
    if given.text is not None:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(given.text, kind)  # a text that happens to look like a number
    return msgspec.convert(given.value, kind)


def _meta(kind: Any, field: str, default: Any) -> Any:
    if get_origin(kind) is not Annotated:
        return default
    return next((getattr(meta, field) for meta in kind.__metadata__ if getattr(meta, field, None)), default)


def _reason(kind: Any, error: msgspec.ValidationError) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"must be one of {', '.join(str(item.value) for item in kind)}"
    described = _meta(kind, "description", "")
    return f"must be {described}" if described else str(error).replace("Expected", "must be").replace("`", "")
