"""The levels for remote partials put together: memory, then the shared server, then one load for all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from apps.app import CacheLevel
from serving.cache.memory import MemoryTier
from serving.cache.tier import MISS, CacheTier, Entry, Found, Miss

Load = Callable[[Sequence[int]], Awaitable[Mapping[int, Entry]]]
"""Fetches the entries at these positions of a batch. Those with `stale_until` in the past are not to be kept."""

Answer = tuple[Entry, CacheLevel]
"""An entry and the level it came from; NONE: loaded."""


class TieredCache:
    """Single-flight: of concurrent misses for one key one loads, the others wait for it. A waiter that is cancelled
    leaves the load running for the rest; a load that fails, fails for all who waited. `clock` is Unix seconds."""

    def __init__(self, memory: MemoryTier, shared: CacheTier | None, clock: Callable[[], float] = time.time) -> None:
        self._memory = memory
        self._shared = shared
        self._clock = clock
        self._flying: dict[bytes, asyncio.Future[Answer]] = {}
        self._flights: set[asyncio.Task[None]] = set()

    def peek(self, keys: Sequence[bytes]) -> list[Found]:
        """What memory has and is fresh; no waiting. Counted: ask once per request, before `fetch`."""
        now_s = self._clock()
        return [_fresh(self._memory.get(key), now_s) for key in keys]

    def look(self, keys: Sequence[bytes]) -> list[Found]:
        """The same again, not counted."""
        now_s = self._clock()
        return [_fresh(self._memory.look(key), now_s) for key in keys]

    async def fetch(self, keys: Sequence[bytes], load: Load) -> list[Answer]:
        """One entry per key, with the level it came from. Raises what `load` raises."""
        answers: list[Answer | asyncio.Future[Answer]] = []
        missing: dict[bytes, int] = {}
        loop = asyncio.get_running_loop()
        for position, (key, entry) in enumerate(zip(keys, self.look(keys), strict=True)):
            if not isinstance(entry, Miss):
                answers.append((entry, CacheLevel.L2))
                continue
            if key not in self._flying:
                self._flying[key] = loop.create_future()
                missing[key] = position
            answers.append(self._flying[key])
        if missing:
            # Its own task: the first caller may be cancelled while others wait for the same keys.
            flight = asyncio.create_task(self._fly(missing, load))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)
        waiting = {one for one in answers if isinstance(one, asyncio.Future)}
        if waiting:
            await asyncio.wait(waiting)  # which leaves them alone when this caller is cancelled
        return [one.result() if isinstance(one, asyncio.Future) else one for one in answers]

    async def find(self, keys: Sequence[bytes]) -> list[Found]:
        """What any level has and is fresh; nothing is loaded, and no load is waited for."""
        found = self.look(keys)
        shared = await self._from_shared({key for key, entry in zip(keys, found, strict=True) if entry is MISS})
        return [shared.get(key, MISS) if entry is MISS else entry for key, entry in zip(keys, found, strict=True)]

    async def find_stale(self, keys: Sequence[bytes]) -> list[Answer | None]:
        """What any level has, fresh or not, with the level."""
        found: list[Answer | None] = [
            None if isinstance(entry, Miss) else (entry, CacheLevel.L2) for entry in map(self._memory.look, keys)
        ]
        missing = [place for place, one in enumerate(found) if one is None]
        if self._shared is not None and missing:
            shared = await self._shared.get_many([keys[place] for place in missing])
            for place, entry in zip(missing, shared, strict=True):
                found[place] = None if isinstance(entry, Miss) else (entry, CacheLevel.L3)
        return found

    async def keep(self, loaded: Mapping[bytes, Entry]) -> None:
        """Store in all levels what was loaded elsewhere."""
        now_s = self._clock()
        kept = {key: entry for key, entry in loaded.items() if entry.stale_until > now_s}
        await self._memory.put_many(kept)
        if self._shared is not None:
            await self._shared.put_many(kept)

    async def close(self) -> None:
        """Loads still running are cancelled, and so are those who wait for them."""
        for flight in self._flights:
            flight.cancel()
        if self._flights:
            await asyncio.wait(self._flights)
        await self._memory.close()
        if self._shared is not None:
            await self._shared.close()

    async def _fly(self, missing: Mapping[bytes, int], load: Load) -> None:
        """Answer every future of `missing`, whatever happens."""
        try:
            left = dict(missing)
            for key, entry in (await self._from_shared(left)).items():
                self._land(key, entry, CacheLevel.L3)
                del left[key]
            if left:
                loaded = await load(list(left.values()))
                kept = {key: loaded[position] for key, position in left.items()}
                await self.keep(kept)
                for key, entry in kept.items():
                    self._land(key, entry, CacheLevel.NONE)
        except BaseException as error:
            for key in missing:
                future = self._flying.pop(key, None)
                if future is not None and isinstance(error, Exception):
                    future.set_exception(error)
                    future.exception()  # nobody may be waiting any more
                elif future is not None:
                    future.cancel()
            raise

    async def _from_shared(self, missing: Collection[bytes]) -> dict[bytes, Entry]:
        if self._shared is None or not missing:
            return {}
        keys, now_s = list(missing), self._clock()
        found = {
            key: entry
            for key, entry in zip(keys, await self._shared.get_many(keys), strict=True)
            if not isinstance(entry, Miss) and entry.fresh_until > now_s
        }
        await self._memory.put_many(found)
        return found

    def _land(self, key: bytes, entry: Entry, level: CacheLevel) -> None:
        self._flying.pop(key).set_result((entry, level))

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if not flight.cancelled():
            flight.exception()  # the waiters have it; asyncio need not say it again


def _fresh(found: Found, now_s: float) -> Found:
    return MISS if isinstance(found, Miss) or found.fresh_until <= now_s else found
