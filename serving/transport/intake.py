"""What callers make a server keep before it answers: requests that have not come to their end, inflated messages."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from serving.transport.status import Code, RpcError

_SHARE = 4
"""A connection may take this part of what its server may keep; beyond the same part of that, its calls take turns."""
_PUSHBACK = (("grpc-retry-pushback-ms", "50"),)


class Keeper(Protocol):
    """A call for which something is kept."""

    def returns(self, count: int) -> None:
        """The peer may send this many bytes more."""


K = TypeVar("K", bound=Keeper)


class Store:
    """Of all connections of a server."""

    __slots__ = ("kept_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.kept_bytes = 0


class Intake(Generic[K]):
    """Of one connection. A call alone may keep as much as a message may have; among several, those that came later get
    their windows back once there is room, so that a few at a time come to their end."""

    __slots__ = ("_kept", "_most_bytes", "_owed", "_room_bytes", "_store", "kept_bytes")

    def __init__(self, store: Store) -> None:
        self.kept_bytes = 0
        self._store = store
        self._most_bytes = store.limit_bytes // _SHARE
        self._room_bytes = self._most_bytes // _SHARE
        self._kept: dict[K, int] = {}
        self._owed: dict[K, int] = {}

    def keep(self, call: K, size: int) -> None:
        """All that is kept for the call now. Raises RpcError when that is too much."""
        more = size - self._kept.get(call, 0)
        if more > 0 and self._full(size, more):
            raise RpcError(Code.RESOURCE_EXHAUSTED, "too many requests kept at once", _PUSHBACK)
        self._kept[call] = size
        self._store.kept_bytes += more
        self.kept_bytes += more
        if more < 0:
            self._settle()

    def _full(self, size: int, more: int) -> bool:
        """Whoever is alone, here or at the server, is not in anybody's way."""
        here, everywhere = self.kept_bytes + more, self._store.kept_bytes + more
        return size < here > self._most_bytes or size < everywhere > self._store.limit_bytes

    def give_back(self, call: K, count: int) -> None:
        """Let the peer send more for this call; now, or when there is room."""
        if self.kept_bytes <= self._room_bytes or call is next(iter(self._kept), call):
            call.returns(count)
        else:
            self._owed[call] = self._owed.get(call, 0) + count

    def owes(self, call: K) -> bool:
        """The peer waits for windows."""
        return call in self._owed

    def release(self, call: K) -> None:
        """Nothing is kept for it any more."""
        size = self._kept.pop(call, 0)
        self._owed.pop(call, None)
        self._store.kept_bytes -= size
        self.kept_bytes -= size
        self._settle()

    def _settle(self) -> None:
        while self._owed:
            first = next(iter(self._owed if self.kept_bytes <= self._room_bytes else self._kept))
            if first not in self._owed:
                break
            first.returns(self._owed.pop(first))
