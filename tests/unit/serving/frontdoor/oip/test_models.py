"""What a name of the protocol leads to, and whether it can answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serving.bindings import VariantWeight
from serving.frontdoor.oip.control import IndexEntry, Repository
from serving.frontdoor.oip.models import UNLOADED, Models
from serving.pool import ModelId
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1, V2 = ModelId("m", "1"), ModelId("m", "2")


@dataclass
class Served:
    party: Party
    models: Models
    repository: Repository

    async def of_service(self) -> list[IndexEntry]:
        return [entry for entry in await self.repository.index(ready_only=False) if entry.name == "s"]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """Two versions share the users of `s`."""
    for version in (V1, V2):
        await asyncio.to_thread(publish, {"bank": tmp_path}, version)
    async with running("bank", tmp_path) as party:
        for version in (V1, V2):
            await party.publishing.load_here(version)
        await party.publishing.online("s", 0, [VariantWeight(V1, 5_000), VariantWeight(V2, 5_000)])
        models = Models(party.publishing.routes, party.pool)
        yield Served(party, models, Repository(party.publishing, models, tmp_path, "bank"))


async def test_a_service_is_ready_when_all_its_versions_are_loaded(served: Served) -> None:
    assert served.models.lacks("s", "") == ""
    assert await served.of_service() == [IndexEntry("s", "1", "READY", ""), IndexEntry("s", "2", "READY", "")]
    await served.party.pool.remove(V2)
    assert served.models.lacks("s", "") == UNLOADED
    assert served.models.lacks("s", "1") == served.models.lacks("m", "") == ""
    assert await served.of_service() == [
        IndexEntry("s", "1", "READY", ""),
        IndexEntry("s", "2", "UNAVAILABLE", UNLOADED),
    ]


async def test_a_service_that_is_refused_here_is_not_ready(served: Served) -> None:
    """As for want of its app."""
    routes = served.party.publishing.routes
    refused = replace(routes.current.services["s"], refusal="app risk:1 is not loaded")
    routes.current = replace(routes.current, services={"s": refused})
    assert served.models.lacks("s", "") == "app risk:1 is not loaded"
    assert {(one.state, one.reason) for one in await served.of_service()} == {
        ("UNAVAILABLE", "app risk:1 is not loaded")
    }
