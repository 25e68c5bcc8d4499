"""Requests through the real L1, L2 and L3, and what reached the hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from apps.app import CacheLevel, PartyStatus, Request
from bench.replay.day import DAY_S, Habits, Requests, most_active, requests_of
from serving.cache.memory import MemoryTier
from serving.cache.result import ResultCache
from serving.cache.tier import MISS, Entry
from serving.cache.tiered import TieredCache
from serving.telemetry.served import Repeats

_METHOD = "predict"
_ANSWER, _PARTIAL = b"answer", bytes(8)
_SEED = 2026


class Levels(msgspec.Struct, frozen=True):
    """Settings of the caches; the defaults are those of a node."""

    shared_ttl_s: float
    warmup_share: float
    """Of all users, the most active ones, fetched in the night into L3."""
    replicas: int = 2
    """Processes with an L1 and an L2 each; requests go to any of them."""
    result_ttl_s: float = 120.0
    result_max_entries: int = 100_000
    remote_ttl_s: float = 600.0
    remote_max_entries: int = 1_000_000


class Point(msgspec.Struct, frozen=True):
    """What the second of two days came to, as shares of its requests."""

    habits: Habits
    levels: Levels
    l1: float
    l2: float
    l3: float
    asked: float
    """Needed a call to a host."""
    night_calls: int
    """Users that the warm-up asked hosts for."""

    @property
    def not_asked(self) -> float:
        return self.l1 + self.l2 + self.l3


class Clock:
    """Set by the replay."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Replica:
    """The caches of one serving process."""

    def __init__(self, levels: Levels, shared: MemoryTier, clock: Clock) -> None:
        self._clock = clock
        self._ttl_s = levels.shared_ttl_s
        self._results = ResultCache(levels.result_max_entries, levels.result_ttl_s, clock)
        memory = MemoryTier(levels.remote_max_entries, levels.remote_ttl_s, clock)
        self._remote = TieredCache(memory, shared, clock)
        self.loads = 0

    async def answer(self, user: int, case: int) -> CacheLevel:
        """Where the answer, or else the host's part of it, came from."""
        raw = b"%d" % case
        if self._results.by_raw(_METHOD, raw, _epoch) is not MISS:
            return CacheLevel.L1
        level = await self.fetch(user)
        named = self._results.case_of(_METHOD, Request("s", "", "", str(case), (str(user),)))
        if named is not None:
            self._results.store(_METHOD, raw, named, 1, _ANSWER, Repeats())
        return level

    async def fetch(self, user: int) -> CacheLevel:
        """The peer leg alone, as the warm-up runs it."""
        key = [b"%d" % user]
        if self._remote.peek(key) != [MISS]:
            return CacheLevel.L2
        if await self._remote.find(key) != [MISS]:
            return CacheLevel.L3
        await self._remote.load(key, self._load, list)
        return CacheLevel.NONE

    async def _load(self, positions: Sequence[int]) -> list[Entry]:
        self.loads += len(positions)
        end = self._clock() + self._ttl_s
        return [Entry(PartyStatus.OK, end, end, _PARTIAL) for _ in positions]


async def replay(habits: Habits, levels: Levels) -> Point:
    """A first day fills the caches; the night's warm-up; the second day is what is told."""
    source, clock = np.random.default_rng(_SEED), Clock()
    shared = MemoryTier(10 * habits.users, levels.shared_ttl_s, clock)
    replicas = [Replica(levels, shared, clock) for _ in range(levels.replicas)]
    first, second = (requests_of(habits, day, source) for day in range(2))
    await _run(first, replicas, clock, source)
    clock.now = max(clock.now, DAY_S)
    before = replicas[0].loads
    for user in most_active(habits, levels.warmup_share, source):
        await replicas[0].fetch(user)
    night_calls = replicas[0].loads - before
    seen = await _run(second, replicas, clock, source)
    total = seen.total()
    l1, l2, l3, asked = (
        round(seen[level] / total, 4) for level in (CacheLevel.L1, CacheLevel.L2, CacheLevel.L3, CacheLevel.NONE)
    )
    return Point(habits, levels, l1, l2, l3, asked, night_calls)


async def _run(
    requests: Requests, replicas: Sequence[Replica], clock: Clock, source: np.random.Generator
) -> Counter[CacheLevel]:
    chosen = source.integers(0, len(replicas), len(requests.times))
    seen: Counter[CacheLevel] = Counter()
    columns = (requests.times.tolist(), requests.users.tolist(), requests.cases.tolist(), chosen.tolist())
    for when, user, case, replica in zip(*columns, strict=True):
        clock.now = max(clock.now, when)
        seen[await replicas[replica].answer(user, case)] += 1
    return seen


def _epoch(_: object) -> int:
    return 1
