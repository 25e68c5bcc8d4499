"""The wanted state in a Redis-protocol server that all replicas of a party share.

One hash holds the revision and the document; a script compares and sets it. The server must not evict and must be on
disk before it answers (append-only file, fsync always): it is asked whenever a connection is new, and refused
otherwise. Every replica keeps the state it saw last in its own folder, and starts from that when the server is out of
reach.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import redis
from redis.commands.core import Script
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from serving.control import (
    ControlStore,
    FileControlStore,
    InDoubtError,
    SnapshotError,
    State,
    decoded,
    successor,
    with_unknown_keys,
)
from serving.errors import ConflictError
from serving.leases import Lease, LeaseLostError, Leases
from serving.reports import REPORT_TTL_S, ReplicaReport

logger = logging.getLogger(__name__)

_SET = """
if redis.call('HGET', KEYS[1], 'change') == ARGV[4] then return 1 end
local revision = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0')
if revision ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'document', ARGV[3], 'change', ARGV[4])
return 1
"""
# A change has a name, so that it can be asked for again when the answer was lost.
_REPORT = """
redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2])
"""
_ACQUIRE = """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if tonumber(redis.call('HGET', KEYS[1], 'expires_ms') or '0') > now_ms then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'expires_ms', now_ms + ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'token', 1)
"""
_RENEW = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'expires_ms', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2])
return 1
"""
_NOTE = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'notes', ARGV[2])
return 1
"""
WANTED = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always"}
_TIMEOUT_S = 2.0


class ControlStoreError(OSError):
    """The server does not answer, or is not one to keep this in. The text says what to do."""


def may_lose(told: Mapping[Any, Any]) -> list[str]:
    """What must be set otherwise in a server of this configuration, as `name value`."""
    found = {_plain(name): _plain(value) for name, value in told.items()}
    return [f"{name} {value}" for name, value in WANTED.items() if found.get(name, value) != value]


class RedisControlStore(ControlStore):
    """`local` keeps what was seen last. Raises ControlStoreError for a server that may lose state, or has."""

    def __init__(self, url: str, party: str, local: FileControlStore) -> None:
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            driver_info=None,
            redis_connect_func=self._connected,
        )
        self._connections, self._examined = 0, -1
        self._met = False
        self._key = f"tessera:control:{party}"
        self._local = local
        self._set = self._redis.register_script(_SET)
        self._tell = self._redis.register_script(_REPORT)
        self._document, self._state = local.document, local.read()
        self._lock = threading.Lock()
        self.leases = RedisLeases(self._redis, f"{self._key}:lease")
        try:
            self._examine()
        except _Unreachable as error:
            logger.error("%s; going on with the state of revision %d", error, self._state.revision)

    def read(self) -> State:
        return self._state

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        self.refresh()
        changed = successor(self._state, expected_revision, state)
        document = with_unknown_keys(msgspec.to_builtins(changed), self._document, msgspec.to_builtins(self._state))
        try:
            done = self._stores(expected_revision, changed.revision, document)
        except ControlStoreError as error:
            raise InDoubtError(error.errno, f"{error.strerror}; it may have made the change all the same") from None
        if not done:
            self.refresh()
            revision = self._state.revision
            raise ConflictError(f"the state has changed meanwhile, it is at revision {revision}; look and try again")
        self._follow(document, changed)
        return changed

    def _stores(self, expected_revision: int, revision: int, document: dict[str, Any]) -> bool:
        """Whether the server has made the change. It is asked once more when it does not say."""
        arguments = (expected_revision, revision, msgspec.json.encode(document), secrets.token_hex(8))
        try:
            with _reaching():
                return bool(self._set(keys=(self._key,), args=arguments))
        except _Unreachable:
            self._revision()  # by a new connection, whose server is to be looked at
            if self._examined != self._connections:
                self._check()
        with _reaching():
            return bool(self._set(keys=(self._key,), args=arguments))

    def refresh(self) -> None:
        """Raises ControlStoreError when the server may lose changes, or has; `read` shows what was seen before."""
        seen = self._state.revision
        revision = self._revision()
        if self._examined != self._connections:
            self._examine()
        elif revision < seen:
            self._examined = -1
            raise _lost(revision, seen)
        elif revision > seen:
            self._follow(*self._stored())

    def report(self, report: ReplicaReport) -> None:
        with _reaching():
            self._tell(keys=(f"{self._key}:replicas",), args=(report.key, msgspec.json.encode(report)))

    def withdraw(self, report: ReplicaReport) -> None:
        with _reaching():
            self._redis.hdel(f"{self._key}:replicas", report.key)

    def reports(self) -> list[ReplicaReport]:
        with _reaching():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.time()
            pipeline.hgetall(f"{self._key}:replicas")
            (now_s, _), told = pipeline.execute()
            found, gone = [], []
            for key, text in sorted(told.items()):
                when, _, raw = text.partition(b" ")
                age_s = float(now_s - int(when))
                if age_s >= REPORT_TTL_S:
                    gone.append(key)
                    continue
                with contextlib.suppress(msgspec.MsgspecError):  # of another version
                    found.append(msgspec.structs.replace(msgspec.json.decode(raw, type=ReplicaReport), age_s=age_s))
            if gone:
                self._redis.hdel(f"{self._key}:replicas", *gone)
        return found

    def close(self) -> None:
        self._redis.close()

    def _connected(self, connection: Any) -> None:
        connection.on_connect()
        self._connections += 1

    def _examine(self) -> None:
        """Of a server that was not asked yet, or may have been replaced by another since: follow it, if it may be."""
        connections = self._connections  # another thread may make one meanwhile, which is examined next
        self._check()
        self._compare()
        self._examined = connections

    def _check(self) -> None:
        try:
            with _reaching():
                told: dict[Any, Any] = self._redis.config_get(*WANTED)
        except NoPermissionError:
            logger.warning("the control store does not tell how it keeps state; it must not evict and must sync always")
            return
        if wrong := may_lose(told):
            raise ControlStoreError(errno.EINVAL, f"control.url: the server may lose state; set {', '.join(wrong)}")

    def _compare(self) -> None:
        """A new server takes over what the node kept by itself; one that knows less than this replica, or another state
        of the same revision, has lost changes."""
        seen = self._state
        if seen.revision and not self._met and not self._revision():
            with _reaching():
                name = secrets.token_hex(8)
                self._set(keys=(self._key,), args=(0, seen.revision, msgspec.json.encode(self._document), name))
        self._met = True
        document, stored = self._stored()
        if stored.revision < seen.revision or (stored.revision == seen.revision and stored != _as_stored(seen)):
            raise _lost(stored.revision, seen.revision)
        self._follow(document, stored)

    def _revision(self) -> int:
        with _reaching():
            return int(self._redis.hget(self._key, "revision") or 0)

    def _stored(self) -> tuple[dict[str, Any], State]:
        with _reaching():
            raw = self._redis.hget(self._key, "document")
            document = msgspec.json.decode(raw or b"{}", type=dict[str, Any])
            return decoded("the control store", document)

    def _follow(self, document: dict[str, Any], state: State) -> None:
        with self._lock:
            if state.revision <= self._state.revision:
                return  # another thread has seen a newer one
            self._document, self._state = document, state
        try:
            self._local.keep(document, state)
        except OSError as error:
            logger.error("the local copy of the state cannot be written: %s", error)


class RedisLeases(Leases):
    """One hash for each name, by the clock of the server."""

    def __init__(self, server: redis.Redis, prefix: str) -> None:
        self._redis = server
        self._prefix = prefix
        self._acquire, self._renew, self._note = (
            server.register_script(script) for script in (_ACQUIRE, _RENEW, _NOTE)
        )

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        with _reaching():
            token = self._acquire(keys=(self._key(name),), args=(holder, round(1_000 * ttl_s)))
        return Lease(name, holder, int(token)) if token else None

    def renew(self, lease: Lease, ttl_s: float) -> None:
        self._as_holder(self._renew, lease, round(1_000 * ttl_s))

    def note(self, lease: Lease, notes: bytes) -> None:
        self._as_holder(self._note, lease, notes)

    def notes(self, name: str) -> bytes:
        with _reaching():
            found: Any = self._redis.hget(self._key(name), "notes")
        return found or b""

    def _as_holder(self, script: Script, lease: Lease, argument: bytes | int) -> None:
        with _reaching():
            done = script(keys=(self._key(lease.name),), args=(lease.token, argument))
        if not done:
            raise LeaseLostError(f"another replica has taken over {lease.name!r} from {lease.holder!r}")

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"


class _Unreachable(ControlStoreError):
    """Perhaps later."""


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except ResponseError:
        raise
    except RedisError as error:
        raise _Unreachable(errno.EHOSTUNREACH, f"the control store does not answer: {type(error).__name__}") from None
    except (SnapshotError, msgspec.MsgspecError) as error:
        raise ControlStoreError(
            errno.EINVAL, f"the control store holds what this version cannot read: {error}"
        ) from None


def _lost(revision: int, seen: int) -> ControlStoreError:
    remedy = (
        "Restore it, or stop this node and remove state.json from its state folder to accept the loss"
        if revision
        else "Restore it, or restart the node that has seen the highest revision: it fills an empty server"
    )
    return ControlStoreError(
        errno.EINVAL,
        f"control.url: the server is at {'another ' if revision == seen else ''}revision {revision}, "
        f"this node has seen {seen}: it lost changes. {remedy}",
    )


def _as_stored(state: State) -> State:
    return msgspec.json.decode(msgspec.json.encode(state), type=State)


def _plain(text: bytes | str) -> str:
    return text.decode() if isinstance(text, bytes) else text
