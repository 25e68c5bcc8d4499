"""A full pool lets go of what nobody needs, and of nothing else. Real parties over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.audit import FILE, Event, Record
from serving.bindings import VariantWeight, wanted_models
from serving.control import Hold, MemoryControlStore
from serving.errors import ConflictError
from serving.lifecycle import LoadState
from serving.pool import ModelId
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V = [ModelId("m", str(number)) for number in range(8)]
ROOM = 3
"""Versions that fit."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    for model in V:
        publish({"bank": folder}, model)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def size(registry: Path) -> int:
    """Of one loaded version."""
    async with running("bank", registry) as bank:
        await bank.publishing.load(V[0])
        return bank.pool.acquire(V[0]).bytes


@pytest.fixture
def full(registry: Path, size: int) -> Callable[..., AsyncExitStack]:
    return lambda **more: running("bank", registry, pool_max_bytes=ROOM * size, **more)


@pytest_asyncio.fixture
async def bank(full: Callable[..., AsyncExitStack]) -> AsyncIterator[Party]:
    """With V0, V1 and V2 loaded, in this order: nothing more fits."""
    async with full() as party:
        for model in V[:ROOM]:
            await party.publishing.load(model)
        yield party


def loaded(party: Party) -> set[ModelId]:
    found = {one.id for one in party.pool.loaded}
    assert found == wanted_models(party.publishing.state())
    return found


async def bind(party: Party, service: str, model: ModelId, revision: int = 0) -> None:
    await party.publishing.online(service, revision, [VariantWeight(model, 10_000)])


async def test_the_least_recently_used_goes(bank: Party) -> None:
    bank.pool.acquire(V[0])
    await bank.publishing.load(V[3])
    assert loaded(bank) == {V[0], V[2], V[3]}
    await bank.publishing.load(V[4])
    assert loaded(bank) == {V[0], V[3], V[4]}


async def test_what_went_does_not_come_back_and_is_audited(bank: Party, registry: Path) -> None:
    await bank.publishing.load(V[3])
    await bank.publishing.set_default_service("")
    await bank.reconciler.all_settled()
    assert V[0] not in loaded(bank)
    assert V[0] not in bank.reconciler.lives
    lines = (await asyncio.to_thread((registry / FILE).read_bytes)).splitlines()
    records = [msgspec.json.decode(line, type=Record) for line in lines][-2:]
    assert [(one.event, one.who, one.what, one.subject) for one in records] == [
        (event, "the pool", "Unload to make room for m/3", "m/0") for event in (Event.ASKED, Event.DONE)
    ]


async def test_current_and_previous_bindings_are_pinned(bank: Party) -> None:
    await bind(bank, "s", V[0])
    await bind(bank, "s", V[1], 1)
    await bank.publishing.load(V[3])
    assert loaded(bank) == {V[0], V[1], V[3]}


async def test_what_another_party_holds_is_pinned(bank: Party) -> None:
    await bank.publishing.holds.grant(
        Hold(party="shop", service="s", model="m", version="0", revision=1, expires_s=4e9)
    )
    await bank.publishing.load(V[3])
    assert loaded(bank) == {V[0], V[2], V[3]}


async def test_what_a_request_uses_is_pinned(bank: Party) -> None:
    with bank.pool.acquire(V[0]), bank.pool.acquire(V[1]):
        pass
    handle = bank.pool.acquire(V[2])
    for model in V[:2]:
        bank.pool.acquire(model)
    with handle:
        await bank.publishing.load(V[3])
    assert loaded(bank) == {V[1], V[2], V[3]}


async def test_when_that_is_not_enough_nothing_goes_and_the_refusal_says_who_holds_the_memory(bank: Party) -> None:
    for number, model in enumerate(V[:ROOM]):
        await bind(bank, f"s{number}", model)
    with pytest.raises(ConflictError, match=r"m/3 needs .* bytes of limits.pool_max_bytes.*m/0 .*m/1 .*m/2"):
        await bank.publishing.load(V[3])
    assert loaded(bank) == set(V[:ROOM])


async def test_loads_at_once_share_what_there_is(bank: Party) -> None:
    await asyncio.gather(*(bank.publishing.load(model) for model in V[3:6]))
    assert loaded(bank) == set(V[3:6])


async def test_a_load_waits_for_what_is_going_already(bank: Party) -> None:
    for number, model in enumerate(V[1:ROOM]):
        await bind(bank, f"s{number}", model)
    with bank.pool.acquire(V[0]):
        going = asyncio.ensure_future(bank.publishing.unload(V[0]))
        while bank.pool.find(V[0]) is not None:
            await asyncio.sleep(0)
        coming = asyncio.ensure_future(bank.publishing.load(V[3]))
        await asyncio.wait({coming}, timeout=0.05)
        assert not coming.done()
    await going
    await coming
    assert loaded(bank) == {V[1], V[2], V[3]}


async def test_after_a_restart_with_less_room_nothing_goes_for_what_is_merely_wanted(registry: Path, size: int) -> None:
    control = MemoryControlStore()
    async with running("bank", registry, control) as first:
        for model in V[:5]:
            await first.publishing.load(model)
    async with running("bank", registry, control, pool_max_bytes=ROOM * size) as again:
        await again.reconciler.all_settled()
        assert len(list(again.pool.loaded)) == ROOM
        assert wanted_models(again.publishing.state()) == set(V[:5])


async def test_replicas_follow(full: Callable[..., AsyncExitStack]) -> None:
    control = MemoryControlStore()
    async with full(store=control) as one, full(store=control, replica="1") as other:
        for model in V[:4]:
            outcomes, _ = await one.publishing.load(model)
            assert [outcome.state for outcome in outcomes] == [LoadState.LOADED] * 2
        assert {handle.id for handle in other.pool.loaded} == loaded(one) == set(V[1:4])


STEPS = st.lists(st.tuples(st.sampled_from(["load", "use", "bind", "unload"]), st.integers(0, len(V) - 1)), max_size=30)


@given(STEPS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_bound_versions_stay_and_the_pool_is_not_overdrawn(
    registry: Path, size: int, steps: list[tuple[str, int]]
) -> None:
    asyncio.run(play(registry, size, steps))


async def play(registry: Path, size: int, steps: list[tuple[str, int]]) -> None:
    async with running("bank", registry, pool_max_bytes=ROOM * size) as bank:
        bound: list[ModelId] = []
        uses: list[ModelId] = []
        for what, number in steps:
            model, before = V[number], {one.id for one in bank.pool.loaded}
            if what == "load" and len(set(bound[-2:])) < ROOM:
                await bank.publishing.load(model)
                gone = before - loaded(bank)
                kept = before - gone - set(bound[-2:]) - {model}
                assert not gone & set(bound[-2:])
                assert all(uses.index(one) < uses.index(other) for one in gone for other in kept)
                uses = [one for one in uses if one not in gone] + ([] if model in before else [model])
            elif what == "use" and model in before:
                bank.pool.acquire(model)
                uses = [one for one in uses if one != model] + [model]
            elif what == "bind" and model in before:
                await bind(bank, "s", model, len(bound))
                bound.append(model)
            elif what == "unload" and model in before - set(bound[-2:]):
                await bank.publishing.unload(model)
                uses.remove(model)
            assert set(bound[-2:]) <= loaded(bank)
            assert bank.pool.held_bytes <= bank.pool.max_bytes


async def test_a_victim_that_another_load_let_go_or_that_was_bound_meanwhile_is_worth_another_look(
    bank: Party, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went, and what was bound, between the choice and the unload."""
    unload, meanwhile = bank.publishing.unload, [lambda: unload(V[0]), lambda: bind(bank, "s", V[1])]

    async def overtaken(model: ModelId, force: bool = False) -> None:
        if meanwhile:
            await meanwhile.pop(0)()
        await unload(model, force)

    monkeypatch.setattr(bank.publishing, "unload", overtaken)
    await bank.publishing.load(V[3])
    assert loaded(bank) == {V[1], V[2], V[3]}
    await bank.publishing.load(V[4])
    assert loaded(bank) == {V[1], V[3], V[4]}
