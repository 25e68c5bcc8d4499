"""Features in a Redis-protocol server: one hash per user, a field per feature."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from loaders.signature import Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError, gathered

MAX_CONNECTIONS = 64


class RedisFeatureSource(FeatureSource):
    """The hash of a user is at `prefix` + id; numbers stand there as text. One round trip per batch, and a second one
    for users without any of the features, who may still exist. A user without a hash is not found. A look-up that takes
    over `timeout_s` has failed; of many at once some wait for a connection meanwhile."""

    def __init__(self, url: str, prefix: str, max_age_s: float | None = None, timeout_s: float = 0.2) -> None:
        self._name = f"feature server {urlsplit(url).hostname or 'on a socket'}"
        self._prefix = prefix
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._redis = Redis.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            decode_responses=True,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # a connection that the server has dropped meanwhile
            driver_info=None,
        )

    async def open(self) -> None:
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            raise FeatureSourceError(f"{self._name} does not answer: {type(error).__name__}") from None

    def check(self, signature: Signature) -> None:
        """A hash says nothing of what others have."""

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        names = (*signature.numbers, *signature.texts)
        keys = [self._prefix + user_id for user_id in user_ids]
        if not keys:
            return gathered(self._name, [], signature, self._max_age_s)
        try:
            async with asyncio.timeout(self._timeout_s), self._room:
                found = await self._hashes(keys, names)
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            raise FeatureSourceError(f"{self._name} does not answer: {type(error).__name__}") from None
        return gathered(self._name, found, signature, self._max_age_s)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _hashes(self, keys: Sequence[str], names: Sequence[str]) -> list[Mapping[str, Any] | None]:
        values = await self._each("hmget", keys, list(names)) if names else [[] for _ in keys]
        empty = [key for key, row in zip(keys, values, strict=True) if not any(one is not None for one in row)]
        there = dict(zip(empty, await self._each("exists", empty), strict=True))
        return [
            dict(zip(names, row, strict=True)) if there.get(key, 1) else None
            for key, row in zip(keys, values, strict=True)
        ]

    async def _each(self, command: str, keys: Sequence[str], *arguments: Any) -> list[Any]:
        if not keys:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            getattr(pipeline, command)(key, *arguments)
        answers: list[Any] = await pipeline.execute()
        return answers
