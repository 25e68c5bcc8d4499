"""Hosts without loads and holds are bound only when accepted, and after they answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apps.app import PartyStatus
from loaders.catalog import load_servable, loader_for
from loaders.loader import PartialSpec
from loaders.merge import merge_rule
from loaders.registry import open_half
from serving.errors import ConflictError
from serving.peers.peer import PeerAnswer
from serving.pool import ModelHandle, ModelId
from serving.unmanaged import STANDING, Acceptance, UnmanagedHosts
from tests.unit.serving.halves import publish


@dataclass
class Host:
    """Knows `users`."""

    users: frozenset[str] = frozenset({"u1"})
    asked: list[str] = field(default_factory=list)

    async def infer(
        self, model: ModelId, binding_digest: str, user_ids: Sequence[str], wanted: PartialSpec, deadline: float
    ) -> PeerAnswer:
        self.asked += user_ids
        known = PartyStatus.OK if set(user_ids) <= self.users else PartyStatus.NOT_FOUND
        return PeerAnswer(wanted.blank(len(user_ids)), [known] * len(user_ids), None)


def loaded(folder: Path) -> ModelHandle:
    publish({party: folder / party for party in ("bank", "shop")}, ModelId("m", "1"))
    artifact = open_half(folder / "bank", "m", "1", "bank")
    loader = loader_for(artifact)
    servable = load_servable(loader)
    return ModelHandle(artifact, servable, merge_rule(artifact.manifest.merge, servable), loader.estimate())


@pytest.fixture
async def handle(tmp_path: Path) -> ModelHandle:
    return await asyncio.to_thread(loaded, tmp_path)


async def test_managed_hosts_are_none_of_this(handle: ModelHandle) -> None:
    assert await UnmanagedHosts().check([handle], Acceptance()) == ()


async def test_an_accepted_host_is_probed_with_the_user_named(handle: ModelHandle) -> None:
    host = Host()
    hosts = UnmanagedHosts({"shop": host, "other": Host()})
    assert await hosts.check([handle], Acceptance(frozenset({"shop"}), "u1")) == ("shop",)
    assert host.asked == ["u1"]


@pytest.mark.parametrize(
    ("acceptance", "text"),
    [
        (Acceptance(), "is unmanaged"),
        (Acceptance(frozenset({"other"}), "u1"), "is unmanaged"),
        (Acceptance(frozenset({"shop"})), "cannot be probed"),
        (Acceptance(frozenset({"shop"}), "u2"), "m/1 at party 'shop': not_found"),
        (STANDING, "is unmanaged"),
    ],
)
async def test_what_is_not_accepted_or_does_not_answer_is_refused(
    handle: ModelHandle, acceptance: Acceptance, text: str
) -> None:
    with pytest.raises(ConflictError, match=text):
        await UnmanagedHosts({"shop": Host()}, {"shop": ""}).check([handle], acceptance)


async def test_a_probe_user_of_the_settings_is_a_standing_acceptance_for_those_who_cannot_say_it(
    handle: ModelHandle,
) -> None:
    hosts = UnmanagedHosts({"shop": Host()}, {"shop": "u1"})
    assert await hosts.check([handle], STANDING) == ("shop",)
    with pytest.raises(ConflictError, match="is unmanaged"):
        await hosts.check([handle], Acceptance())
    assert await hosts.check([handle], Acceptance(frozenset({"shop"}))) == ("shop",)
