"""Federation/Hold and Release as another party's bytes meet them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from serving.pool import ModelId
from serving.transport import Channel, Code, RpcError, Transport, channel
from tessera.v1 import federation_pb2 as wire
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1 = ModelId("m", "1")


@dataclass
class Host:
    party: Party
    link: Channel
    digest: bytes
    folder: Path

    async def hold(self, **changes: Any) -> None:
        fields = {"model": "m", "version": "1", "binding_digest": self.digest, "revision": 1, "ttl_s": 60}
        request = wire.HoldRequest(**{**fields, "service": "s", **changes})
        await self.link.unary("/tessera.v1.Federation/Hold", request.SerializeToString(), 5.0)

    async def release(self, **changes: Any) -> None:
        request = wire.ReleaseRequest(model="m", version="1", service="s", **changes)
        await self.link.unary("/tessera.v1.Federation/Release", request.SerializeToString(), 5.0)

    def publishes(self) -> list[str]:
        return [hold.publish for hold in self.party.store.read().holds]

    def audited(self) -> list[str]:
        lines = map(json.loads, (self.folder / "audit.log").read_text().splitlines())
        return [line["what"] for line in lines if line["event"] == "done"]


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    digest = await asyncio.to_thread(publish, {"bank": tmp_path / "bank", "shop": tmp_path / "shop"}, V1)
    async with running("shop", tmp_path / "shop") as party:
        await party.publishing.load_here(V1)
        link = channel(Transport.NATIVE, party.address)
        yield Host(party, link, bytes.fromhex(digest), tmp_path / "shop")
        await link.close()


async def test_a_guest_that_names_no_publish_has_one_hold(host: Host) -> None:
    await host.hold()
    await host.hold(revision=2)
    assert host.publishes() == [""]
    await host.release()
    assert host.publishes() == []


async def test_holds_are_the_publishs_until_another_takes_their_place(host: Host) -> None:
    await host.hold()
    await host.hold(publish="one", revision=2)
    await host.release(publish="other")
    assert host.publishes() == ["", "one"]
    await host.hold(publish="one", revision=2, replaces="")
    assert host.publishes() == ["one"]
    await host.hold(publish="two", revision=3, replaces="one")
    assert host.publishes() == ["two"]


async def test_what_changes_is_audited_and_renewals_are_not(host: Host) -> None:
    await host.hold(publish="one")
    await host.hold(publish="one")
    await host.hold(publish="two", revision=2, replaces="one")
    await host.release(publish="one")
    await host.release(publish="two")
    done = ["Federation/Hold", "Federation/Hold", "Federation/Release"]
    assert await asyncio.to_thread(host.audited) == done


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ttl_s": 0}, "ttl_s is 0"),
        ({"ttl_s": 86_401}, "ttl_s is 86401"),
        ({"service": "s" * 257}, "service has more than 256 characters"),
        ({"publish": "p" * 257}, "publish has more than 256 characters"),
    ],
)
async def test_what_would_be_kept_too_long_is_refused(host: Host, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RpcError) as refused:
        await host.hold(**changes)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert said in refused.value.details
    assert host.publishes() == []
