"""The levels for remote partials put together: memory, then the shared server, then one load for all who wait.

Who answers a batch asks step by step, so that what one step found need not wait for the next: `peek`, then `find` for
what is missing, then `load` for what is missing still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from serving.cache.memory import MemoryTier
from serving.cache.tier import MISS, CacheTier, Entry, Found
from serving.transport.promise import Promise, settled

A = TypeVar("A")

Load = Callable[[Sequence[int]], Awaitable[A]]
"""Asks for the entries at these positions of a batch."""
Unpack = Callable[[A], Sequence[Entry]]
"""From the answer to the entries, in the order asked. Those with `stale_until` in the past are not to be kept."""
_Landing = Promise[dict[bytes, Entry]]


class _Flight:
    """A load on its way, `among` others. `landed` has its entries; those for whom it goes on, and that have not left,
    are counted in `waiting`."""

    __slots__ = ("among", "asked", "keys", "landed", "waiting")

    def __init__(self, among: dict[bytes, _Flight], keys: Sequence[bytes], asked: Promise[Any]) -> None:
        self.among = among
        self.keys = keys
        self.asked = asked
        among.update(dict.fromkeys(keys, self))
        self.landed: _Landing = Promise()
        self.waiting = 0

    def join(self) -> _Landing:
        """One for each caller, so that each can leave."""
        self.waiting += 1
        return self.overhear()

    def overhear(self) -> _Landing:
        """For who is told what comes of it, but does not keep it going."""
        landing: _Landing = Promise()
        self.landed.add_done_callback(landing.follow)
        return landing


class TieredCache:
    """Single-flight: of concurrent misses for one key one asks the shared level, and one loads; the others wait for it.
    A waiter that is cancelled leaves a load running for the rest; when none is left it is cancelled. A load that fails,
    fails for all who waited. Loads aside, which answer nobody, are flights of their own: who answers waits for none of
    them, for they may be slower and be refused; who loads aside overhears what is loaded for an answer. `clock` is Unix
    seconds."""

    def __init__(self, memory: MemoryTier, shared: CacheTier | None, clock: Callable[[], float] = time.time) -> None:
        self._memory = memory
        self._shared = shared
        self._clock = clock
        self._asked: dict[bytes, Promise[dict[bytes, Entry]]] = {}
        self._flying: dict[bytes, _Flight] = {}
        self._aside: dict[bytes, _Flight] = {}

    def peek(self, keys: Sequence[bytes]) -> list[Found]:
        """What memory has and is fresh; no waiting. Counted: ask once per request."""
        return self._memory.fresh(keys)

    def look(self, keys: Sequence[bytes]) -> list[Found]:
        """The same again, not counted."""
        return self._memory.fresh(keys, counted=False)

    async def find(self, keys: Sequence[bytes]) -> list[Found]:
        """What the shared level has and is fresh, one question for all that nobody is asking for already. It comes to
        memory, which is not asked."""
        if self._shared is None:
            return [MISS] * len(keys)
        asked = self._asked
        if asked.keys().isdisjoint(keys):
            own, others = list(dict.fromkeys(keys)), set[Promise[dict[bytes, Entry]]]()
        else:
            own = list(dict.fromkeys([key for key in keys if key not in asked]))
            others = {asked[key] for key in keys if key in asked}
        found = await self._ask(self._shared, own) if own else {}
        if others:
            await settled(list(others))
            for other in others:
                found = found | other.result()
        return [found.get(key, MISS) for key in keys] if found else [MISS] * len(keys)

    async def load(
        self,
        keys: Sequence[bytes],
        load: Load[A],
        unpack: Unpack[A],
        deadline: float | None = None,
        aside: bool = False,
    ) -> list[Entry]:
        """One entry per key. Raises what `load` raises, which must end in time by itself, and TimeoutError when other
        callers' loads take longer than until `deadline`, in loop time."""
        found = self.look(keys)  # it may have come since the caller looked
        flying = self._aside if aside else self._flying
        missing: dict[bytes, int] = {}
        flights: set[_Flight] = set()
        for position, key in enumerate(keys):
            if found[position] is MISS:
                if key in flying:
                    flights.add(flying[key])
                else:
                    missing.setdefault(key, position)
        own = self._begin(flying, missing, load, unpack) if missing else None
        if own is not None:
            flights.add(own)
        loaded = await self._landed(flights, own, deadline) if flights else {}
        if len(missing) == len(keys):
            return [loaded[key] for key in keys]
        return [loaded[key] if entry is MISS else entry for key, entry in zip(keys, found, strict=True)]

    def is_loading(self, key: bytes) -> bool:
        """For an answer."""
        return key in self._flying

    async def overhear(self, keys: Sequence[bytes], deadline: float) -> list[Found]:
        """What loads for answers bring, when one is on its way, which goes on or ends as if nobody overheard it. MISS
        where it fails or ends, or takes longer than until `deadline`, in loop time."""
        landings = [flight.overhear() for flight in {self._flying[key] for key in keys if key in self._flying}]
        brought = dict(zip(keys, self.look(keys), strict=True))
        await settled(landings, _left_s(deadline))
        for landing in landings:
            if landing.done() and not landing.cancelled() and landing.exception() is None:
                brought.update(landing.result())
        return [brought[key] for key in keys]

    async def find_stale(self, keys: Sequence[bytes]) -> list[tuple[Found, bool]]:
        """What any level has, fresh or not, and whether it came from the shared one."""
        found: list[tuple[Found, bool]] = [(self._memory.look(key), False) for key in keys]
        missing = [place for place, (entry, _) in enumerate(found) if entry is MISS]
        if self._shared is not None and missing:
            shared = await self._shared.get_many([keys[place] for place in missing])
            for place, entry in zip(missing, shared, strict=True):
                found[place] = (entry, True)
        return found

    def keep(self, loaded: Mapping[bytes, Entry]) -> None:
        """Store in all levels what was loaded."""
        now_s = self._clock()
        kept = {key: entry for key, entry in loaded.items() if entry.stale_until > now_s}
        self._memory.put_many(kept)
        if self._shared is not None:
            self._shared.put_many(kept)

    async def close(self) -> None:
        """Loads still running are cancelled, and so are those who wait for them."""
        flights = {*self._flying.values(), *self._aside.values()}
        for flight in flights:
            flight.asked.cancel()
        await settled([flight.asked for flight in flights])
        await self._memory.close()
        if self._shared is not None:
            await self._shared.close()

    async def _ask(self, shared: CacheTier, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        answer: Promise[dict[bytes, Entry]] = Promise()
        self._asked.update(dict.fromkeys(keys, answer))
        found: dict[bytes, Entry] = {}
        try:
            now_s = self._clock()
            answers = zip(keys, await shared.get_many(keys), strict=True)
            found |= {key: one for key, one in answers if one is not MISS and one.fresh_until > now_s}
            self._memory.put_many(found)
        finally:
            for key in keys:
                del self._asked[key]
            answer.set_result(found)
        return found

    def _begin(
        self, flying: dict[bytes, _Flight], missing: Mapping[bytes, int], load: Load[A], unpack: Unpack[A]
    ) -> _Flight:
        """In a promise of its own: the first caller may be cancelled while others wait for the same keys."""
        flight = _Flight(flying, list(missing), Promise.of(load(list(missing.values()))))
        flight.asked.add_done_callback(partial(self._land, flight, unpack))
        return flight

    def _land(self, flight: _Flight, unpack: Unpack[Any], asked: Promise[Any]) -> None:
        _forget(flight)
        if asked.cancelled():
            flight.landed.cancel()
            return
        try:
            entries = dict(zip(flight.keys, unpack(asked.result()), strict=True))
        except Exception as error:  # noqa: BLE001 - those who wait are told
            flight.landed.set_exception(error)
        else:
            self.keep(entries)
            flight.landed.set_result(entries)

    async def _landed(self, flights: set[_Flight], own: _Flight | None, deadline: float | None) -> dict[bytes, Entry]:
        landings = [flight.join() for flight in flights]
        try:
            if own is not None and len(flights) == 1:
                return await landings[0]
            if not await settled(landings, None if deadline is None else _left_s(deadline)):
                raise TimeoutError
            return {key: entry for landing in landings for key, entry in landing.result().items()}
        finally:
            for flight in flights:
                flight.waiting -= 1
                if not flight.waiting and not flight.asked.done():
                    _forget(flight)
                    flight.asked.cancel()


def _left_s(deadline: float) -> float:
    """Until then, in loop time."""
    return max(0.0, deadline - asyncio.get_running_loop().time())


def _forget(flight: _Flight) -> None:
    """Who misses its keys from now on loads again."""
    for key in flight.keys:
        if flight.among.get(key) is flight:
            del flight.among[key]
