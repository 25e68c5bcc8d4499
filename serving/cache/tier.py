"""The contract of one level of cache for remote partials.

Times are Unix seconds from an injected clock. TTLs are absolute: a read never prolongs an entry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

from apps.app import PartyStatus


class Miss(Enum):
    """Not a value: what a tier answers for a key that it does not have."""

    MISS = "miss"


MISS = Miss.MISS


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One host's partial of one user. `payload` is float64 little-endian, empty unless `status` is OK.

    Until `fresh_until` it is an answer; until `stale_until` only a service with policy `stale` may use it.
    """

    status: PartyStatus
    fresh_until: float
    stale_until: float
    payload: bytes


Found = Entry | Miss


class CacheTier(ABC):
    """Keys are bytes (cache/keys.py makes them). A tier answers entries up to their `stale_until`."""

    @abstractmethod
    async def get_many(self, keys: Sequence[bytes]) -> list[Found]:
        """One answer per key, in order. Never raises: a tier that is down answers MISS and counts it."""

    @abstractmethod
    def put_many(self, entries: Mapping[bytes, Entry]) -> None:
        """Store, sooner or later: nobody waits for it. Entries past `stale_until` are ignored. Never raises."""

    @abstractmethod
    async def drop_many(self, keys: Sequence[bytes]) -> None:
        """Forget; unknown keys are fine. Never raises."""

    @abstractmethod
    async def close(self) -> None: ...
