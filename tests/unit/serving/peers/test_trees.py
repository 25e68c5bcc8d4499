"""Directions and leaves over the wire and through the caches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import partial as bound
from pathlib import Path

import numpy as np
import pytest

from apps.app import CacheLevel, PartyStatus
from loaders.loader import PartialForm
from loaders.signature import Batch
from serving.cache.memory import MemoryTier
from serving.cache.tiered import TieredCache
from serving.peers.remote import RemotePartials
from serving.settings import CacheSettings
from tests import forests
from tests.unit.serving.peers.host_party import Halves, collected, loaded, shop

SETTINGS = CacheSettings()
SOURCE = random.Random(3)
USERS = [f"u{number}" for number in range(20)]
FEATURES: Mapping[str, Mapping[str, float]] = {
    user: {f"shop{place}": round(SOURCE.uniform(-1, 1), 1) for place in range(3)} for user in USERS
}
OWN = [[round(SOURCE.uniform(-1, 1), 1) for _ in range(2)] for _ in USERS]


def soon() -> float:
    return asyncio.get_running_loop().time() + 5.0


def halves(folder: Path, forest: forests.Forest) -> Halves:
    forests.publish({"bank": folder / "bank", "shop": folder / "shop"}, forest)
    return loaded(folder / "bank", "bank"), loaded(folder / "shop", "shop")


@pytest.mark.parametrize("mix", [False, True], ids=["directions", "leaves"])
async def test_a_guest_walks_with_what_the_host_sent_or_the_cache_kept(tmp_path: Path, mix: bool) -> None:
    forest = forests.grow(5, (2, 3), 8, 4, mix=mix)
    async with shop(tmp_path, made=bound(halves, forest=forest)) as host:
        host.features.update(FEATURES)
        guest = host.handle
        assert guest.wanted["shop"].form is (PartialForm.LEAVES if mix else PartialForm.DIRECTIONS)
        cache = TieredCache(MemoryTier(1_000, 60.0), None)
        remote = RemotePartials("bank", {"shop": host.peer}, cache, bytes(32), SETTINGS)
        own = guest.servable.predict(Batch(np.array(OWN), np.empty((len(USERS), 0), dtype=np.object_)))
        expected = [
            forests.evaluate(forest, [row, list(FEATURES[user].values())]) for row, user in zip(OWN, USERS, strict=True)
        ]
        for level in (CacheLevel.NONE, CacheLevel.L2):
            found = await collected(remote, host, USERS)
            assert found.levels == [level] * len(USERS)
            scores = guest.merge([own["directions"], found.values])
            assert scores == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("mix", [False, True], ids=["directions", "leaves"])
async def test_an_unknown_user_does_not_disturb_the_others(tmp_path: Path, mix: bool) -> None:
    forest = forests.grow(5, (2, 3), 8, 4, mix=mix)
    async with shop(tmp_path, made=bound(halves, forest=forest)) as host:
        host.features.update(FEATURES)
        remote = RemotePartials(
            "bank", {"shop": host.peer}, TieredCache(MemoryTier(9, 60.0), None), bytes(32), SETTINGS
        )
        found = await collected(remote, host, ["u0", "nobody"])
        assert found.statuses == [PartyStatus.OK, PartyStatus.NOT_FOUND]
        own = host.handle.servable.predict(Batch(np.array(OWN[:2]), np.empty((2, 0), dtype=np.object_)))
        [score, _] = host.handle.merge([own["directions"], found.values])
        assert score == pytest.approx(forests.evaluate(forest, [OWN[0], list(FEATURES["u0"].values())]), abs=1e-12)
