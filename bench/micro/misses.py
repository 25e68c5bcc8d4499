"""New users' partials: keys, memory, the shared level, single-flight, an answer that is at hand, and its stores."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from apps.app import PartyStatus
from bench.micro.redis_wire import redis_url, stepping
from loaders.catalog import load_servable, loader_for
from loaders.loader import PartialSpec
from loaders.merge import merge_rule
from loaders.registry import open_half
from serving.cache.memory import MemoryTier
from serving.cache.redis import RedisTier
from serving.cache.tier import CacheTier
from serving.cache.tiered import TieredCache
from serving.peers.peer import PeerAnswer
from serving.peers.remote import RemotePartials
from serving.pool import ModelHandle, ModelId
from serving.settings import CacheSettings, Purpose
from tests.artifacts import make_bound_pair

_HOST = "shop"


class AtHand:
    """A party that knows everybody, and answers at once."""

    def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> Awaitable[PeerAnswer]:
        answer: asyncio.Future[PeerAnswer] = asyncio.get_running_loop().create_future()
        answer.set_result(PeerAnswer(np.zeros((len(user_ids), 1)), [PartyStatus.OK] * len(user_ids), None))
        return answer

    async def close(self) -> None: ...


def memory_1000_new_users() -> Callable[[], None]:
    """A batch of 1 000 new users without a shared level."""
    return _batches(None)


def shared_1000_new_users() -> Callable[[], None]:
    """The same with a shared level: looked up there, and stored."""
    return _batches(RedisTier(redis_url(), 10.0))


def _batches(shared: CacheTier | None) -> Callable[[], None]:
    cache = TieredCache(MemoryTier(100_000, 600.0), shared)
    remote = RemotePartials("bank", {_HOST: AtHand()}, cache, bytes(32), CacheSettings())
    half, numbers = _half(), count()

    async def step() -> None:
        lookup = remote.look(_HOST, half, [f"u{next(numbers):012d}" for _ in range(1_000)])
        await remote.find(lookup)
        await remote.ask(lookup, asyncio.get_running_loop().time() + 5)
        lookup.partials()
        if isinstance(shared, RedisTier):
            await shared.flush()

    return stepping(step)


def _half() -> ModelHandle:
    with tempfile.TemporaryDirectory() as folder:
        roots = Path(folder, "bank"), Path(folder, _HOST)
        make_bound_pair(
            *roots,
            model="m",
            version="1",
            guest="bank",
            host=_HOST,
            guest_weights={"a": 1.0},
            host_weights={"x": 1.0},
            intercept=0.0,
        )
        artifact = open_half(roots[0], "m", "1", "bank")
        loader = loader_for(artifact)
        servable = load_servable(loader)
        return ModelHandle(artifact, servable, merge_rule(artifact.manifest.merge, servable), loader.estimate())
