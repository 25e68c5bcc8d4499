"""Cache hits and cache keys: what a request costs that needs no other party."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from apps.app import PartyStatus, Request
from serving.cache.keys import KeyMaker
from serving.cache.memory import MemoryTier
from serving.cache.result import Case, ResultCache
from serving.cache.tier import Entry
from serving.cache.tiered import TieredCache
from serving.telemetry.served import Repeats

REQUEST = Request("s", "", "", "c", ("u",), numbers={f"f{number}": float(number) for number in range(30)})
RAW = secrets.token_bytes(600)


def result_cache_hit() -> Callable[[], None]:
    """L1 by 600 raw bytes, each time another bytes object as from the wire. Budget: 2 µs."""
    cache, case = _results()
    for number in range(10_000):
        cache.store("m", RAW + b"%d" % number, case, 1, b"reply", Repeats())
    source = bytearray(RAW + b"7")

    def hit() -> None:
        cache.by_raw("m", bytes(source), lambda address: 1)

    return hit


def result_cache_case_hit() -> Callable[[], None]:
    """L1 by the case, 30 features, its key included. Budget: 5 µs."""
    cache, case = _results()
    cache.store("m", RAW, case, 1, b"reply", Repeats())
    return lambda: _ignore(cache.by_case(cache.case_of("m", REQUEST), lambda address: 1))


def user_key() -> Callable[[], None]:
    """The key of one user under the remote caches. Budget: 3 µs."""
    maker = KeyMaker(secrets.token_bytes(32), "bank", 0, "shop", ("m", "1", "ab" * 32))
    return lambda: _ignore(maker.keys(["user-000123"]))


def remote_cache_hit() -> Callable[[], None]:
    """L2 for one user whose key is known. Budget: 3 µs."""
    tiered = TieredCache(_filled(10_000), None)
    return lambda: _ignore(tiered.peek([b"t1:bank:0:7"]))


def remote_cache_hit_of_1000() -> Callable[[], None]:
    """L2 for a batch of 1 000 users whose keys are known. Budget: 1 ms."""
    tiered = TieredCache(_filled(10_000), None)
    keys = [b"t1:bank:0:%d" % number for number in range(1_000)]
    return lambda: _ignore(tiered.peek(keys))


def _results() -> tuple[ResultCache, Case]:
    cache = ResultCache(100_000, 1e9)
    case = cache.case_of("m", REQUEST)
    if case is None:
        raise ValueError("the request names no case")
    return cache, case


def _filled(entries: int) -> MemoryTier:
    tier = MemoryTier(entries, 1e9)
    end = time.time() + 1e6
    for number in range(entries):
        tier.put(b"t1:bank:0:%d" % number, Entry(PartyStatus.OK, end, end, bytes(8)))
    return tier


def _ignore(_: object) -> None: ...
