"""Where the activity of users is summed over the replicas of a party, by service and day."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import hiredis

from serving.cache.redis_connection import RedisAddress, RedisConnection, packed

Counted = tuple[str, bytes, int]
"""Service, sealed id, times."""
Top = tuple[Sequence[tuple[bytes, int]], int, int]
"""Sealed ids with their counts, the largest first; how many users there are; and from offset 0, how many calls there
were in all, else 0."""

KEPT_S = 35 * 86_400
UNION_S = 60
TIMEOUT_S = 5.0


class ActivityStore(ABC):
    """Days count from 1970-01-01, UTC. Every method raises OSError when the store does not answer."""

    @abstractmethod
    async def add(self, day: int, counted: Sequence[Counted]) -> None: ...

    @abstractmethod
    async def top(self, service: str, days: tuple[int, int], offset: int, limit: int) -> Top:
        """Of the days from the first to the last."""

    @abstractmethod
    async def close(self) -> None: ...


class MemoryActivityStore(ActivityStore):
    """For tests, and for nodes without a shared server: nothing survives. Bounded in users of each service and day."""

    def __init__(self, max_users: int) -> None:
        self._max_users = max_users
        self._days: dict[tuple[str, int], Counter[bytes]] = {}

    async def add(self, day: int, counted: Sequence[Counted]) -> None:
        self._days = {key: found for key, found in self._days.items() if key[1] > day - KEPT_S // 86_400}
        for service, sealed, times in counted:
            users = self._days.setdefault((service, day), Counter())
            if sealed in users or len(users) < self._max_users:
                users[sealed] += times

    async def top(self, service: str, days: tuple[int, int], offset: int, limit: int) -> Top:
        users: Counter[bytes] = Counter()
        for day in range(days[0], days[1] + 1):
            users.update(self._days.get((service, day), {}))
        ordered = sorted(users.items(), key=lambda item: (item[1], item[0]), reverse=True)
        return ordered[offset : offset + limit], len(users), 0 if offset else users.total()

    async def close(self) -> None:
        self._days.clear()


class RedisActivityStore(ActivityStore):
    """One sorted set per service and day, with a TTL. Beyond `max_users` the least active of a day go. `key_id` says
    which secret the ids are sealed with."""

    def __init__(self, url: str, party: str, key_id: int, max_users: int) -> None:
        self._connection = RedisConnection(RedisAddress.of(url))
        self._prefix = f"ta1:{party}:{key_id}"
        self._max_users = max_users

    async def add(self, day: int, counted: Sequence[Counted]) -> None:
        commands = []
        for service, sealed, times in counted:
            commands.append(packed("ZINCRBY", self._key(service, day), str(times), sealed))
        for service in {service for service, _, _ in counted}:
            key = self._key(service, day)
            commands.append(packed("ZREMRANGEBYRANK", key, "0", str(-self._max_users - 1)))
            commands.append(packed("EXPIRE", key, str(KEPT_S)))
        if commands:
            await self._ask(commands)

    async def top(self, service: str, days: tuple[int, int], offset: int, limit: int) -> Top:
        union = f"{self._prefix}:{service}:{days[0]}-{days[1]}"
        keys = [self._key(service, day) for day in range(days[0], days[1] + 1)]
        [there] = await self._ask([packed("EXPIRE", union, str(UNION_S))])
        if not there or offset == 0:
            await self._ask(
                [packed("ZUNIONSTORE", union, str(len(keys)), *keys), packed("EXPIRE", union, str(UNION_S))]
            )
        page = packed("ZREVRANGE", union, str(offset), str(offset + limit - 1), "WITHSCORES")
        flat, users = await self._ask([page, packed("ZCARD", union)])
        found = [(sealed, int(float(score))) for sealed, score in zip(flat[::2], flat[1::2], strict=True)]
        return found, users, 0 if offset else await self._total(union)

    async def close(self) -> None:
        await self._connection.close()

    async def _total(self, union: str) -> int:
        """In pages: a sum over all at once would keep the server from answering others."""
        total, start = 0, 0
        while True:
            page = packed("ZRANGE", union, str(start), str(start + _PAGE - 1), "WITHSCORES")
            [flat] = await self._ask([page])
            total += sum(int(float(score)) for score in flat[1::2])
            start += _PAGE
            if len(flat) < 2 * _PAGE:
                return total

    async def _ask(self, commands: Sequence[bytes]) -> list[Any]:
        replies = await self._connection.send(b"".join(commands), len(commands), TIMEOUT_S)
        refused = next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), None)
        if refused is not None:
            raise OSError(f"the shared server refuses: {refused}")
        return replies

    def _key(self, service: str, day: int) -> str:
        return f"{self._prefix}:{service}:{day}"


_PAGE = 5_000
