"""Two replicas of a guest that share a control store: what each does to the holds of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from serving.bindings import VariantWeight
from serving.control import Hold, State
from serving.errors import ConflictError, NotKeptError
from serving.holds import Holds
from serving.pool import ModelId
from tests.gated_store import Gated
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running
from tests.unit.serving.test_publishing import Silent

V1, V2, V3 = (ModelId("m", version) for version in "123")
MISSING = ModelId("m", "9")
"""A version whose half the host lacks."""


def all_of(model: ModelId) -> list[VariantWeight]:
    return [VariantWeight(model, 10_000)]


@dataclass
class Parties:
    """`one` and `other` are replicas of the guest and share `store`."""

    one: Party
    other: Party
    shop: Party
    store: Gated

    def held(self) -> list[str]:
        """Versions, once for every hold."""
        return sorted(hold.version for hold in self.shop.store.read().holds)


@pytest_asyncio.fixture
async def parties(tmp_path: Path) -> AsyncIterator[Parties]:
    roots = {party: tmp_path / party for party in ("bank", "shop")}
    for model in (V1, V2, V3):
        await asyncio.to_thread(publish, roots, model)
    await asyncio.to_thread(publish, {"bank": tmp_path / "bank", "shop": tmp_path / "elsewhere"}, MISSING)
    store = Gated()
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(running("shop", roots["shop"]))
        one, other = [
            await stack.enter_async_context(running("bank", roots["bank"], store, {"shop": shop.address}, replica=name))
            for name in ("one", "other")
        ]
        while len(await asyncio.to_thread(store.reports)) < 2:
            await asyncio.sleep(0)
        await asyncio.gather(*map(one.publishing.load, (V1, V2, V3, MISSING)))
        yield Parties(one, other, shop, store)


@pytest.mark.parametrize("bound_before", [True, False])
async def test_a_publish_that_fails_releases_nothing_that_another_replicas_is_about_to_bind(
    parties: Parties, bound_before: bool
) -> None:
    if bound_before:
        await parties.one.publishing.online("s", 0, all_of(V2))
    revision = int(bound_before)
    parties.store.gate.clear()
    binding = asyncio.ensure_future(parties.one.publishing.online("s", revision, all_of(V1)))
    while "1" not in parties.held():
        await asyncio.sleep(0)
    weights = [VariantWeight(V1, 5_000), VariantWeight(MISSING, 5_000)]
    with pytest.raises(ConflictError, match="m/9 is not loaded at party 'shop'"):
        await parties.other.publishing.online("s", revision, weights)
    with pytest.raises(ConflictError, match="m/1 is needed by party 'bank'"):
        await parties.shop.publishing.unload(V1)
    parties.store.gate.set()
    await binding
    assert parties.held() == (["1", "2"] if bound_before else ["1"])


async def test_of_two_replicas_changes_one_is_bound_and_held(parties: Parties) -> None:
    results = await asyncio.gather(
        parties.one.publishing.online("s", 0, all_of(V1)),
        parties.other.publishing.online("s", 0, [VariantWeight(V1, 5_000), VariantWeight(V2, 5_000)]),
        return_exceptions=True,
    )
    assert [isinstance(result, ConflictError) for result in results].count(True) == 1
    variants = parties.store.read().services["s"].current.variants
    assert parties.held() == [variant.version for variant in variants]


async def test_replicas_that_publish_in_turn_hold_what_the_last_two_bindings_need(parties: Parties) -> None:
    turns = [parties.one, parties.other, parties.other, parties.one]
    for revision, (replica, model) in enumerate(zip(turns, (V1, V2, V3, V2), strict=True)):
        await replica.publishing.online("s", revision, all_of(model))
    assert parties.held() == ["2", "3"]
    assert {hold.publish for hold in parties.shop.store.read().holds} == {parties.store.read().services["s"].publish}
    for replica in (parties.one, parties.other):
        await replica.publishing.keep_holds()
    assert parties.held() == ["2", "3"]
    await parties.other.publishing.offline("s", 4)
    assert parties.held() == []


async def test_who_holds_a_version_is_said_once(parties: Parties) -> None:
    await parties.one.publishing.online("s", 0, all_of(V1))
    other = Hold(party="bank", service="s", model="m", version="1", revision=2, expires_s=1e12, publish="other")
    await parties.shop.publishing.holds.grant(other)
    assert next(status.held_by for status in parties.shop.publishing.models()) == ("party 'bank' (service 's')",)


async def test_a_binding_of_which_nobody_knew_is_held_from_the_next_renewal_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, roots = Silent(), {party: tmp_path / party for party in ("bank", "shop")}
    for model in (V1, V2):
        await asyncio.to_thread(publish, roots, model)
    async with running("shop", roots["shop"]) as shop:
        async with running("bank", roots["bank"], store, {"shop": shop.address}) as bank:
            await asyncio.gather(*map(bank.publishing.load, (V1, V2)))
            await bank.publishing.online("s", 0, all_of(V1))
            store.silent = True
            with pytest.raises(NotKeptError):
                await bank.publishing.online("s", 1, all_of(V2))
            store.silent = False
            await bank.publishing.keep_holds()
        now = store.read().services["s"].publish
        left = [one for one in shop.store.read().holds if one.publish != now]
        await Holds(shop.publishing._wanted, lambda: max(one.expires_s for one in left)).sweep()
        assert sorted((one.version, one.publish) for one in shop.store.read().holds) == [("1", now), ("2", now)]
    assert "has expired" not in caplog.text


async def test_what_a_version_held_that_knew_no_publishes_is_passed_on(parties: Parties) -> None:
    def as_before(state: State) -> State:
        services = {name: msgspec.structs.replace(one, publish="") for name, one in state.services.items()}
        holds = tuple(msgspec.structs.replace(one, publish="") for one in state.holds)
        return msgspec.structs.replace(state, services=services, holds=holds)

    await parties.one.publishing.online("s", 0, all_of(V1))
    for store in (parties.store, parties.shop.store):
        await asyncio.to_thread(store.compare_and_set, store.read().revision, as_before(store.read()))
    await parties.one.publishing.keep_holds()
    assert parties.held() == ["1"]
    bound = await parties.one.publishing.online("s", 1, all_of(V2))
    assert parties.held() == ["1", "2"]
    assert {hold.publish for hold in parties.shop.store.read().holds} == {bound.publish}
