"""Features from a service of this party, asked over HTTP for a batch at a time.

    POST url   {"user_ids": [...], "numbers": [names], "texts": [names]}
    200        {"users": {id: {name: value}}, "max_age_s": 30}

Ids that are not among `users` are unknown; `max_age_s` is optional. Ids travel in the body only, so that they stay out
of the access logs of proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import httpx
import msgspec

from loaders.signature import Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError, gathered

MAX_CONNECTIONS = 64


class _Reply(msgspec.Struct):
    users: dict[str, dict[str, float | str | None]]
    max_age_s: float | None = None


class HttpFeatureSource(FeatureSource):
    """`token` goes out as a bearer token. Connections are kept; a call that takes over `timeout_s` has failed."""

    def __init__(self, url: str, token: str = "", max_age_s: float | None = None, timeout_s: float = 0.2) -> None:
        self._name = f"feature service {urlsplit(url).hostname}"
        self._url = url
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=None,  # noqa: S113 - the whole look-up is bounded; steps alone would let a service drip
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            trust_env=False,
        )

    async def open(self) -> None:
        """Connections open with the first look-up: the service may start after this node."""

    def check(self, signature: Signature) -> None:
        """The service alone knows what it has."""

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        asked = {"user_ids": user_ids, "numbers": signature.numbers, "texts": signature.texts}
        reply = await self._ask(msgspec.json.encode(asked))
        users: list[Mapping[str, float | str | None] | None] = [reply.users.get(user_id) for user_id in user_ids]
        ages = [age for age in (reply.max_age_s, self._max_age_s) if age is not None]
        return gathered(self._name, users, signature, min(ages, default=None))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, body: bytes) -> _Reply:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.post(self._url, content=body, headers={"content-type": "application/json"})
            if answer.status_code != httpx.codes.OK:
                raise FeatureSourceError(f"{self._name} answers with HTTP status {answer.status_code}")
            return msgspec.json.decode(answer.content, type=_Reply)
        except (httpx.HTTPError, TimeoutError) as error:
            raise FeatureSourceError(f"{self._name} does not answer: {type(error).__name__}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FeatureSourceError(f"{self._name}: its reply cannot be used: {error}") from None
