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

_GRACE_S = 0.02
"""Of several turns of the event loop."""
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
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._asking: set[asyncio.Future[httpx.Response]] = set()

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
        for asking in self._asking:
            asking.cancel()
        if self._asking:
            await asyncio.wait(self._asking)
        await self._client.aclose()

    async def _ask(self, body: bytes) -> _Reply:
        try:
            answer = await self._answer(body)
            if answer.status_code != httpx.codes.OK:
                raise FeatureSourceError(f"{self._name} answers with HTTP status {answer.status_code}")
            return msgspec.json.decode(answer.content, type=_Reply)
        except (httpx.HTTPError, TimeoutError) as error:
            raise FeatureSourceError(f"{self._name} does not answer: {type(error).__name__}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FeatureSourceError(f"{self._name}: its reply cannot be used: {error}") from None

    async def _answer(self, body: bytes) -> httpx.Response:
        """In a task of its own. httpcore loses a connection for good when a request is cancelled while it waits for one
        or has just been given one: so none waits there, and none is cancelled that has just begun."""
        begun = asyncio.Event()
        asking = asyncio.ensure_future(self._post(body, begun))
        self._asking.add(asking)
        asking.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(asking)
        except (TimeoutError, asyncio.CancelledError):
            if begun.is_set():
                asyncio.get_running_loop().call_later(_GRACE_S, asking.cancel)
            else:
                asking.cancel()
                await asyncio.wait({asking})
            raise

    async def _post(self, body: bytes, begun: asyncio.Event) -> httpx.Response:
        async with self._room:
            begun.set()
            return await self._client.post(self._url, content=body, headers={"content-type": "application/json"})

    def _ended(self, asking: asyncio.Future[httpx.Response]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # nobody may wait for it any more
