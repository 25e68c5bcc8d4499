"""The level in this process, and the in-memory twin of the shared one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cachetools import LRUCache

from serving.cache.counts import Counts
from serving.cache.tier import MISS, CacheTier, Entry, Found


class MemoryTier(CacheTier):
    """Least recently used goes first. Entries carry their own end, so an LRU is enough; it costs a third of
    cachetools' TLRUCache. No entry stays longer than `ttl_s`. The synchronous forms are for the path where nothing may
    wait. `clock` is Unix seconds."""

    def __init__(
        self, max_entries: int, ttl_s: float, clock: Callable[[], float] = time.time, stale_s: float = 0.0
    ) -> None:
        self._entries: LRUCache[bytes, Entry] = LRUCache(max_entries)
        self._ttl_s = ttl_s
        self._stale_s = stale_s
        self._clock = clock
        self.counts = Counts()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Found:
        entry = self.look(key)
        if entry is MISS:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return entry

    def look(self, key: bytes) -> Found:
        """Not counted, for who looks a second time."""
        try:
            entry = self._entries[key]
        except KeyError:
            return MISS
        if entry.stale_until <= self._clock():
            del self._entries[key]
            return MISS
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        now_s = self._clock()
        if entry.stale_until > now_s:
            grows = key not in self._entries
            size = len(self._entries)
            self._entries[key] = _at_most(entry, now_s + self._ttl_s, self._stale_s)
            self.counts.fills += 1
            self.counts.evictions += grows and len(self._entries) == size

    def drop(self, key: bytes) -> None:
        self._entries.pop(key, None)

    async def get_many(self, keys: Sequence[bytes]) -> list[Found]:
        return [self.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, Entry]) -> None:
        for key, entry in entries.items():
            self.put(key, entry)

    async def drop_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.drop(key)

    async def close(self) -> None:
        self._entries.clear()


def _at_most(entry: Entry, end_s: float, stale_s: float) -> Entry:
    """`entry` fresh no longer than to `end_s`, and stale for no more than `stale_s` after it."""
    if entry.fresh_until <= end_s and entry.stale_until <= end_s + stale_s:
        return entry
    stale_until = min(entry.stale_until, end_s + stale_s)
    return replace(entry, fresh_until=min(entry.fresh_until, end_s), stale_until=stale_until)
