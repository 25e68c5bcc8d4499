"""Two or three parties over loopback: what the guest's publishing does at all of them."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from loaders.artifact import HalfRef
from loaders.registry import bind, half_path, write_half
from loaders.tessera import TesseraLoader
from serving.bindings import VariantWeight
from serving.control import FileControlStore, Hold, InDoubtError, MemoryControlStore, State
from serving.errors import ConflictError, InvalidRequestError, UnknownNameError
from serving.holds import hold_model
from serving.lifecycle import LoadState, ModelState
from serving.pool import ModelId
from serving.readiness import publishing_problems
from serving.transport import Code, RpcError
from tessera.v1 import admin_pb2 as wire
from tests.artifacts import linear_half, npy
from tests.gated_store import Gated
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1, V2, V3 = (ModelId("m", version) for version in "123")
MISSING = ModelId("m", "9")
ALL = [VariantWeight(V1, 10_000)]


def all_of(model: ModelId) -> list[VariantWeight]:
    return [VariantWeight(model, 10_000)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """V1 to V3 at bank (guest) and shop; version 9 only at bank, bound to a half that shop never stored."""
    folder = tmp_path_factory.mktemp("published")
    for model in (V1, V2, V3):
        publish({party: folder / party for party in ("bank", "shop")}, model)
    publish({"bank": folder / "bank", "shop": folder / "elsewhere"}, MISSING)
    return folder


@pytest.fixture
def registries(published: Path, tmp_path: Path) -> dict[str, Path]:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return {party: tmp_path / party for party in ("bank", "shop")}


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture
async def shop(stack: AsyncExitStack, registries: dict[str, Path]) -> Party:
    return await stack.enter_async_context(running("shop", registries["shop"]))


@pytest_asyncio.fixture
async def bank(stack: AsyncExitStack, registries: dict[str, Path], shop: Party) -> Party:
    return await stack.enter_async_context(running("bank", registries["bank"], peers={"shop": shop.address}))


@pytest_asyncio.fixture
async def loaded(bank: Party) -> Party:
    """bank, with V1 to V3 loaded everywhere."""
    for model in (V1, V2, V3):
        await bank.publishing.load(model)
    return bank


def held(party: Party) -> list[tuple[ModelId, str, int]]:
    return sorted((hold_model(hold), hold.service, hold.revision) for hold in party.store.read().holds)


def wanted(party: Party) -> list[str]:
    return sorted(model.version for model in party.store.read().models)


async def test_a_load_reaches_every_party(bank: Party, shop: Party) -> None:
    outcomes, digest = await bank.publishing.load(V1)
    assert [(one.party, one.replica, one.state) for one in outcomes] == [
        ("bank", "0", LoadState.LOADED),
        ("shop", "0", LoadState.LOADED),
    ]
    for party in (bank, shop):
        assert party.pool.half(V1).artifact.binding_digest == digest
        assert wanted(party) == ["1"]
    assert bank.publishing.routes.current.services == {}


async def test_a_load_may_be_repeated(bank: Party, shop: Party) -> None:
    await bank.publishing.load(V1)
    revisions = bank.store.read().revision, shop.store.read().revision
    outcomes, _ = await bank.publishing.load(V1)
    assert {one.state for one in outcomes} == {LoadState.ALREADY_LOADED}
    assert (bank.store.read().revision, shop.store.read().revision) == revisions


async def test_a_half_that_one_party_lacks_leaves_the_others_loaded(
    bank: Party, shop: Party, registries: dict[str, Path], tmp_path: Path
) -> None:
    outcomes, _ = await bank.publishing.load(MISSING)
    assert [(one.party, one.state) for one in outcomes] == [("bank", LoadState.LOADED), ("shop", LoadState.FAILED)]
    assert "no half of m/9 for party 'shop'" in outcomes[1].reason
    assert (wanted(bank), wanted(shop)) == (["9"], [])

    await asyncio.to_thread((tmp_path / "elsewhere" / "m" / "9").rename, registries["shop"] / "m" / "9")
    outcomes, _ = await bank.publishing.load(MISSING)
    assert [one.state for one in outcomes] == [LoadState.ALREADY_LOADED, LoadState.LOADED]


async def test_without_its_own_half_the_guest_asks_nobody(bank: Party, shop: Party) -> None:
    with pytest.raises(UnknownNameError, match="no half of m/7 for party 'bank'"):
        await bank.publishing.load(ModelId("m", "7"))
    assert (wanted(bank), wanted(shop)) == ([], [])
    assert not bank.publishing.models()
    assert not shop.publishing.models()


async def test_a_half_of_another_binding_is_refused_and_not_kept(
    bank: Party, shop: Party, registries: dict[str, Path], tmp_path: Path
) -> None:
    other = ModelId("other", "1")
    ours = await asyncio.to_thread(publish, {"bank": registries["bank"], "shop": tmp_path / "nowhere"}, other)
    theirs = await asyncio.to_thread(
        publish, {"bank": tmp_path / "nowhere", "shop": registries["shop"]}, other, "bank", 0.75
    )
    outcomes, _ = await bank.publishing.load(other)
    assert outcomes[1].reason == f"other/1 is bound as {theirs} here and as {ours} at the caller"
    await shop.reconciler.settled(other)
    assert shop.pool.find(other) is None


async def test_a_host_that_does_not_let_us_load_says_so(stack: AsyncExitStack, registries: dict[str, Path]) -> None:
    shop = await stack.enter_async_context(running("shop", registries["shop"], may_load=("credit",)))
    bank = await stack.enter_async_context(running("bank", registries["bank"], peers={"shop": shop.address}))
    outcomes, _ = await bank.publishing.load(V1)
    assert outcomes[1].state is LoadState.FAILED
    assert "peers.bank.may_load" in outcomes[1].reason
    with pytest.raises(ConflictError, match=r"peers\.bank\.may_load"):
        await bank.publishing.online("s", 0, ALL)
    assert wanted(shop) == []


async def test_a_host_that_is_down_is_named(registries: dict[str, Path], stack: AsyncExitStack) -> None:
    lonely = await stack.enter_async_context(running("bank", registries["bank"], peers={"shop": "127.0.0.1:1"}))
    outcomes, _ = await lonely.publishing.load(V1)
    assert (outcomes[0].state, outcomes[1].state) == (LoadState.LOADED, LoadState.FAILED)
    assert "party 'shop'" in outcomes[1].reason


async def test_a_host_without_an_address_is_named(registries: dict[str, Path], stack: AsyncExitStack) -> None:
    lonely = await stack.enter_async_context(running("bank", registries["bank"]))
    outcomes, _ = await lonely.publishing.load(V1)
    assert "peers.shop.address" in outcomes[1].reason
    with pytest.raises(ConflictError, match=r"peers\.shop\.address"):
        await lonely.publishing.online("s", 0, ALL)


async def test_a_load_that_takes_too_long_is_given_up(
    stack: AsyncExitStack, registries: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = await stack.enter_async_context(running("bank", registries["bank"], load_timeout_s=0.05))
    go = threading.Event()
    load = TesseraLoader.load
    monkeypatch.setattr(TesseraLoader, "load", lambda self: go.wait(10) and load(self))
    with pytest.raises(ConflictError, match=r"m/1 did not load within 0\.05 s \(limits\.load_timeout_s\)"):
        await bank.publishing.load(V1)
    go.set()
    assert (await bank.reconciler.settled(V1)).state is ModelState.UNLOADED


async def test_a_load_that_cannot_be_kept_is_undone(
    stack: AsyncExitStack, registries: dict[str, Path], tmp_path: Path
) -> None:
    store = await asyncio.to_thread(FileControlStore, tmp_path / "state")
    bank = await stack.enter_async_context(running("bank", registries["bank"], store))
    (tmp_path / "state" / "state.draft").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        await bank.publishing.load(V1)
    assert (await bank.reconciler.settled(V1)).state is ModelState.UNLOADED
    await bank.publishing.load(V1)
    assert wanted(bank) == ["1"]


async def test_a_load_that_was_acknowledged_does_not_depend_on_another_one(
    stack: AsyncExitStack, registries: dict[str, Path]
) -> None:
    store = Gated(fails=1)
    bank = await stack.enter_async_context(running("bank", registries["bank"], store))
    store.gate.clear()
    first = asyncio.ensure_future(bank.publishing.load(V1))
    while store.writes < 1:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(bank.publishing.load(V1))
    while store.writes < 2 and not second.done():
        await asyncio.sleep(0)
    store.gate.set()
    with pytest.raises(OSError, match="No space left"):
        await first
    await second
    assert (await bank.reconciler.settled(V1)).state is ModelState.READY
    assert wanted(bank) == ["1"]


@pytest.mark.parametrize("wanted_meanwhile", [True, False])
async def test_a_load_that_failed_at_another_replica_is_tried_again(
    stack: AsyncExitStack, registries: dict[str, Path], tmp_path: Path, wanted_meanwhile: bool
) -> None:
    store, copy = MemoryControlStore(), tmp_path / "copy"
    await asyncio.to_thread(shutil.copytree, registries["bank"], copy)
    weights = next(copy.glob("m/1/*/weights.npy"))
    intact = await asyncio.to_thread(weights.read_bytes)
    await asyncio.to_thread(weights.write_bytes, b"rubbish")
    one = await stack.enter_async_context(running("bank", registries["bank"], store, replica="one"))
    other = await stack.enter_async_context(running("bank", copy, store, replica="other"))
    while len(await asyncio.to_thread(store.reports)) < 2:
        await asyncio.sleep(0)
    states = {outcome.replica: outcome.state for outcome in (await one.publishing.load_here(V1))[0]}
    assert states == {"one": LoadState.LOADED, "other": LoadState.FAILED}
    await asyncio.to_thread(weights.write_bytes, intact)
    if not wanted_meanwhile:
        await one.publishing.unload(V1)
    states = {outcome.replica: outcome.state for outcome in (await one.publishing.load_here(V1))[0]}
    assert states["other"] is LoadState.LOADED
    assert other.publishing.life(V1).state is ModelState.READY
    revision = store.read().revision
    await one.publishing.load_here(V1)
    assert store.read().revision == revision


async def test_many_loads_at_once_load_once_and_all_answer(bank: Party) -> None:
    replies = await asyncio.gather(*(bank.publishing.load(V1) for _ in range(8)))
    assert all(one.state is not LoadState.FAILED for outcomes, _ in replies for one in outcomes)
    assert wanted(bank) == ["1"]


async def test_online_binds_and_holds_at_the_host(loaded: Party, shop: Party) -> None:
    bound = await loaded.publishing.online("s", 0, [VariantWeight(V1, 9_000), VariantWeight(V2, 1_000)])
    assert (bound.revision, bound.previous, bound.current.app) == (1, None, "passthrough")
    route = loaded.publishing.routes.current.services["s"]
    assert [(variant.name, variant.ranges) for variant in route.variants] == [
        ("m:1", ((0, 9_000),)),
        ("m:2", ((9_000, 10_000),)),
    ]
    assert held(shop) == [(V1, "s", 1), (V2, "s", 1)]
    assert {hold.party for hold in shop.store.read().holds} == {"bank"}


async def test_a_change_moves_few_users_and_keeps_the_salt(loaded: Party) -> None:
    first = await loaded.publishing.online("s", 0, ALL)
    second = await loaded.publishing.online("s", 1, [VariantWeight(V2, 500), VariantWeight(V1, 9_500)])
    assert second.salt == first.salt
    assert [variant.ranges for variant in second.current.variants] == [((9_500, 10_000),), ((0, 9_500),)]
    assert second.previous == first.current
    assert second.epoch > first.epoch


async def test_salts_differ_between_services(loaded: Party) -> None:
    salts = {(await loaded.publishing.online(name, 0, ALL)).salt for name in "abc"}
    assert len(salts) == 3
    assert all(len(salt) == 32 for salt in salts)


async def test_a_version_that_is_not_loaded_here_does_not_go_online(bank: Party) -> None:
    with pytest.raises(ConflictError, match="m/1 is not loaded at this party"):
        await bank.publishing.online("s", 0, ALL)


async def test_a_version_that_a_host_lacks_does_not_go_online(bank: Party, shop: Party) -> None:
    await bank.publishing.load(V1)
    await bank.publishing.load(MISSING)
    with pytest.raises(ConflictError, match=r"m/9 at party 'shop': .*m/9 is not loaded at party 'shop'"):
        await bank.publishing.online("s", 0, [VariantWeight(V1, 5_000), VariantWeight(MISSING, 5_000)])
    assert bank.publishing.routes.current.services == {}
    assert held(shop) == []


async def test_a_version_held_with_another_binding_does_not_go_online(
    loaded: Party, shop: Party, registries: dict[str, Path], tmp_path: Path
) -> None:
    other = ModelId("other", "1")
    ours = await asyncio.to_thread(publish, {"bank": registries["bank"], "shop": tmp_path / "nowhere"}, other)
    await asyncio.to_thread(publish, {"bank": tmp_path / "nowhere", "shop": registries["shop"]}, other, "bank", 0.75)
    await loaded.publishing.load_here(other)
    await shop.publishing.load_here(other)
    with pytest.raises(ConflictError, match=f"party 'shop': .*other/1 is bound as .* here and as {ours} at the caller"):
        await loaded.publishing.online("s", 0, all_of(other))
    assert held(shop) == []


async def test_only_the_guest_of_a_model_puts_it_online(loaded: Party, shop: Party) -> None:
    with pytest.raises(ConflictError, match="this party is host of m/1"):
        await shop.publishing.online("s", 0, ALL)


@pytest.mark.parametrize("seen", [0, 2])
async def test_a_stale_revision_is_refused_with_the_current_one(loaded: Party, shop: Party, seen: int) -> None:
    await loaded.publishing.online("s", 0, ALL)
    with pytest.raises(ConflictError, match=f"'s' is at revision 1, not {seen}"):
        await loaded.publishing.online("s", seen, all_of(V2))
    assert held(shop) == [(V1, "s", 1)]


async def test_of_two_changes_at_once_one_is_refused(loaded: Party, shop: Party) -> None:
    results = await asyncio.gather(
        *(loaded.publishing.online("s", 0, all_of(model)) for model in (V1, V2)), return_exceptions=True
    )
    [refused] = [result for result in results if isinstance(result, ConflictError)]
    assert "is at revision 1, not 0" in str(refused)
    [bound] = loaded.publishing.routes.current.services["s"].variants
    assert held(shop) == [(bound.model, "s", 1)]


async def test_a_change_that_fails_takes_no_hold_from_one_under_way(
    stack: AsyncExitStack, registries: dict[str, Path], shop: Party
) -> None:
    store = Gated()
    bank = await stack.enter_async_context(running("bank", registries["bank"], store, {"shop": shop.address}))
    for model in (V1, MISSING):
        await bank.publishing.load(model)
    store.gate.clear()
    binding = asyncio.ensure_future(bank.publishing.online("s", 0, ALL))
    while not held(shop):
        await asyncio.sleep(0)
    failing = asyncio.ensure_future(
        bank.publishing.online("s", 0, [VariantWeight(V1, 5_000), VariantWeight(MISSING, 5_000)])
    )
    await asyncio.wait({failing}, timeout=0.2)  # it must wait for the other one
    store.gate.set()
    await binding
    with pytest.raises(ConflictError, match="is at revision 1"):
        await failing
    assert held(shop) == [(V1, "s", 1)]


async def test_a_binding_whose_caller_went_away_is_held_at_the_hosts(
    stack: AsyncExitStack, registries: dict[str, Path], shop: Party
) -> None:
    store = Gated()
    bank = await stack.enter_async_context(running("bank", registries["bank"], store, {"shop": shop.address}))
    await bank.publishing.load(V1)
    store.gate.clear()
    before = store.writes
    binding = asyncio.ensure_future(bank.publishing.online("s", 0, ALL))
    while store.writes == before:
        await asyncio.sleep(0)
    binding.cancel()
    await asyncio.wait({binding}, timeout=0.2)
    store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await binding
    assert "s" in bank.publishing.state().services
    assert held(shop) == [(V1, "s", 1)]


@pytest.mark.parametrize(
    ("weights", "app", "parameters", "message"),
    [
        ([VariantWeight(V1, 5_000)], "", "", "sum to 10000"),
        (ALL, "nobody", "", "unknown app 'nobody'"),
        (ALL, "passthrough", '{"factor": 1}', "factor"),
    ],
)
async def test_wrong_calls_are_refused_before_anyone_is_asked(
    loaded: Party, shop: Party, weights: list[VariantWeight], app: str, parameters: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await loaded.publishing.online("s", 0, weights, app, parameters)
    assert held(shop) == []


async def test_the_app_is_the_callers_else_the_models_own(bank: Party, registries: dict[str, Path]) -> None:
    scored = ModelId("scored", "1")
    await asyncio.to_thread(publish, registries, scored, "bank", 0.5, "scorecard")
    await bank.publishing.load(scored)
    assert (await bank.publishing.online("s", 0, all_of(scored))).current.app == "scorecard"
    assert (await bank.publishing.online("s", 1, all_of(scored), "passthrough")).current.app == "passthrough"
    parameters = '{"ignore_unknown": true}'
    await bank.publishing.online("s", 2, all_of(scored), "passthrough", parameters)
    assert bank.publishing.routes.current.services["s"].app.parameters.ignore_unknown


async def test_rollback_goes_back_one_step_and_forth_again(loaded: Party, shop: Party) -> None:
    first = await loaded.publishing.online("s", 0, ALL)
    second = await loaded.publishing.online("s", 1, all_of(V2))
    back = await loaded.publishing.rollback("s", 2)
    assert (back.revision, back.current, back.previous) == (3, first.current, second.current)
    assert loaded.publishing.routes.current.services["s"].variants[0].model == V1
    assert (await loaded.publishing.rollback("s", 3)).current == second.current
    assert held(shop) == [(V1, "s", 4), (V2, "s", 4)]


async def test_rollback_needs_a_service_a_revision_and_a_previous_binding(loaded: Party) -> None:
    with pytest.raises(UnknownNameError, match="unknown service 's'"):
        await loaded.publishing.rollback("s", 0)
    await loaded.publishing.online("s", 0, ALL)
    with pytest.raises(ConflictError, match="no previous binding"):
        await loaded.publishing.rollback("s", 1)
    with pytest.raises(ConflictError, match="at revision 1, not 5"):
        await loaded.publishing.rollback("s", 5)


async def test_what_no_binding_needs_any_more_is_released(loaded: Party, shop: Party) -> None:
    for revision, model in enumerate((V1, V2, V3)):
        await loaded.publishing.online("s", revision, all_of(model))
    assert [model for model, _, _ in held(shop)] == [V2, V3]
    await shop.publishing.unload(V1)
    with pytest.raises(ConflictError, match=r"m/2 is needed by party 'bank' \(service 's'\)"):
        await shop.publishing.unload(V2)


async def test_unload_names_the_services_that_need_a_version(loaded: Party) -> None:
    await loaded.publishing.online("s", 0, ALL)
    await loaded.publishing.online("s", 1, all_of(V2))
    for model in (V1, V2):  # the previous binding counts too
        with pytest.raises(ConflictError, match=f"{model} is needed by service 's'; unload it with force"):
            await loaded.publishing.unload(model)
        assert loaded.pool.find(model)


async def test_a_forced_unload_keeps_the_binding(loaded: Party) -> None:
    await loaded.publishing.online("s", 0, ALL)
    epoch = loaded.publishing.routes.current.services["s"].epoch
    await loaded.publishing.unload(V1, force=True)
    assert loaded.pool.find(V1) is None
    route = loaded.publishing.routes.current.services["s"]
    assert route.variants[0].model == V1
    assert route.epoch > epoch
    await loaded.publishing.load(V1)
    assert loaded.pool.find(V1)


async def test_unload_waits_for_the_requests_under_way(loaded: Party) -> None:
    with loaded.pool.acquire(V1):
        unloading = asyncio.ensure_future(loaded.publishing.unload(V1))
        while loaded.pool.find(V1):
            await asyncio.sleep(0)
        assert not unloading.done()
    await unloading
    assert V1 not in [status.life.model for status in loaded.publishing.models()]
    with pytest.raises(UnknownNameError, match="m/1 is not loaded"):
        await loaded.publishing.unload(V1)


async def test_the_default_service_must_exist(loaded: Party) -> None:
    with pytest.raises(UnknownNameError, match="unknown service 's'"):
        await loaded.publishing.set_default_service("s")
    await loaded.publishing.online("s", 0, ALL)
    await loaded.publishing.set_default_service("s")
    assert loaded.publishing.routes.current.target(("", "", ""), "user").model == V1
    await loaded.publishing.set_default_service("")
    assert loaded.publishing.routes.current.default_service == ""


async def test_a_service_that_is_removed_leaves_its_versions_loaded_and_needs_none(loaded: Party, shop: Party) -> None:
    for revision, model in enumerate((V1, V2)):
        await loaded.publishing.online("s", revision, all_of(model))
    await loaded.publishing.online("t", 0, all_of(V2))
    assert await loaded.publishing.remove("s", 2)
    assert not await loaded.publishing.remove("s", 2), "to do it again is fine"
    assert sorted(loaded.publishing.routes.current.services) == ["t"]
    assert held(shop) == [(V2, "t", 1)]
    assert wanted(loaded) == ["1", "2", "3"]
    await loaded.publishing.unload(V1)


async def test_a_service_that_is_the_default_or_has_changed_is_not_removed(loaded: Party, shop: Party) -> None:
    await loaded.publishing.online("s", 0, ALL)
    await loaded.publishing.set_default_service("s")
    with pytest.raises(ConflictError, match="'s' is the default service; choose another one, or none, first"):
        await loaded.publishing.remove("s", 1)
    await loaded.publishing.set_default_service("")
    with pytest.raises(ConflictError, match="'s' is at revision 1, not 2"):
        await loaded.publishing.remove("s", 2)
    assert "s" in loaded.publishing.routes.current.services
    assert held(shop) == [(V1, "s", 1)]


async def test_models_say_who_needs_them(loaded: Party, shop: Party) -> None:
    await loaded.publishing.online("s", 0, ALL)
    assert [status.held_by for status in loaded.publishing.models()] == [("service 's'",), (), ()]
    assert [status.held_by for status in shop.publishing.models()] == [("party 'bank' (service 's')",), (), ()]


async def test_a_restart_brings_back_models_bindings_and_holds(
    stack: AsyncExitStack, registries: dict[str, Path], tmp_path: Path, shop: Party
) -> None:
    peers = {"shop": shop.address}
    store = await asyncio.to_thread(FileControlStore, tmp_path / "state")
    async with running("bank", registries["bank"], store, peers) as bank:
        for model in (V1, V2):
            await bank.publishing.load(model)
        await bank.publishing.online("s", 0, ALL)
        await bank.publishing.online("t", 0, all_of(V2))
        before = bank.publishing.state()
    broken = next(registries["bank"].glob("m/2/*/weights.npy"))
    await asyncio.to_thread(broken.write_bytes, b"rubbish")

    store = await asyncio.to_thread(FileControlStore, tmp_path / "state")
    again = await stack.enter_async_context(running("bank", registries["bank"], store, peers))
    await again.reconciler.all_settled()
    assert again.publishing.state() == before
    assert sorted(again.publishing.routes.current.services) == ["s", "t"]
    states = {status.life.model: status.life for status in again.publishing.models()}
    assert states[V1].state is ModelState.READY
    assert states[V2].state is ModelState.FAILED
    assert "corrupt" in states[V2].reason
    with again.pool.acquire(V1):
        pass
    await again.publishing.keep_holds()
    assert [model for model, _, _ in held(shop)] == [V1, V2]


async def test_a_binding_that_cannot_be_kept_changes_nothing(
    stack: AsyncExitStack, registries: dict[str, Path], tmp_path: Path, shop: Party
) -> None:
    store = await asyncio.to_thread(FileControlStore, tmp_path / "state")
    bank = await stack.enter_async_context(running("bank", registries["bank"], store, {"shop": shop.address}))
    for model in (V1, V2):
        await bank.publishing.load(model)
    bound = await bank.publishing.online("s", 0, ALL)
    (tmp_path / "state" / "state.draft").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        await bank.publishing.online("s", 1, all_of(V2))
    assert bank.publishing.state().services["s"] == bound
    assert bank.publishing.routes.current.services["s"].variants[0].model == V1
    assert [model for model, _, _ in held(shop)] == [V1]


class Silent(MemoryControlStore):
    """Makes a change and does not say so."""

    silent = False

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        stored = super().compare_and_set(expected_revision, state)
        if self.silent:
            raise InDoubtError(errno.EHOSTUNREACH, "the control store does not answer")
        return stored


async def test_a_binding_of_which_nobody_knows_whether_it_is_kept_keeps_its_holds(
    stack: AsyncExitStack, registries: dict[str, Path], shop: Party
) -> None:
    store = Silent()
    bank = await stack.enter_async_context(running("bank", registries["bank"], store, {"shop": shop.address}))
    await bank.publishing.load(V1)
    store.silent = True
    request = wire.PublishOnlineRequest(
        service="s", variants=[wire.VariantWeight(model="m", version="1", weight=10_000)]
    )
    with pytest.raises(RpcError) as refused:
        await bank.admin.PublishOnline(request)
    assert (refused.value.code, refused.value.details) == (
        Code.UNAVAILABLE,
        "the change is not kept: the control store does not answer",
    )
    assert "s" in store.read().services
    assert held(shop) == [(V1, "s", 1)]


async def test_holds_are_renewed_and_found_again_after_a_host_lost_them(loaded: Party, shop: Party) -> None:
    await loaded.publishing.online("s", 0, ALL)
    [hold] = shop.store.read().holds
    await shop.publishing.holds.release(hold)
    await loaded.publishing.keep_holds()
    [again] = shop.store.read().holds
    assert (hold_model(again), again.revision) == (V1, 1)
    await loaded.publishing.keep_holds()
    [renewed] = shop.store.read().holds
    assert renewed.expires_s > again.expires_s


async def test_a_renewal_that_fails_is_logged_at_the_guest(
    loaded: Party, shop: Party, caplog: pytest.LogCaptureFixture
) -> None:
    await loaded.publishing.online("s", 0, ALL)
    await shop.publishing.unload(V1, force=True)
    assert await loaded.publishing.keep_holds()
    assert "a hold could not be renewed, it will expire: m/1 at party 'shop'" in caplog.text
    assert loaded.publishing.host_holds.refused == 1
    [problem] = publishing_problems(loaded.publishing)
    assert problem.startswith("service 's' needs a version that is not held for it: m/1 at party 'shop'")
    await loaded.publishing.load(V1)
    assert not await loaded.publishing.keep_holds()
    assert not list(publishing_problems(loaded.publishing))
    assert held(shop) == [(V1, "s", 1)]


async def test_expired_holds_are_swept(shop: Party, caplog: pytest.LogCaptureFixture) -> None:
    expired = Hold(party="bank", service="s", model="m", version="1", revision=1, expires_s=1.0)
    await shop.publishing.load_here(V1)
    await shop.publishing.holds.grant(expired)
    await shop.publishing.unload(V1)
    await shop.publishing.keep_holds()
    assert shop.store.read().holds == ()
    assert "the hold of party bank on m/1 for its service s has expired" in caplog.text


async def test_a_version_unloaded_while_its_holds_are_taken_does_not_go_online(
    stack: AsyncExitStack, registries: dict[str, Path], shop: Party
) -> None:
    bank = await stack.enter_async_context(running("bank", registries["bank"], peers={"shop": shop.address}))
    await bank.publishing.load(V1)
    going = asyncio.ensure_future(bank.publishing.online("s", 0, ALL))
    while not held(shop):
        await asyncio.sleep(0)
    unloading = asyncio.ensure_future(bank.publishing.unload(V1))
    results = await asyncio.gather(going, unloading, return_exceptions=True)
    assert [isinstance(result, ConflictError) for result in results].count(True) == 1


async def test_three_parties(stack: AsyncExitStack, tmp_path: Path) -> None:
    roots = {party: tmp_path / party for party in ("bank", "shop", "telco")}
    await asyncio.to_thread(publish, roots, ModelId("trio", "1"))
    hosts = {party: await stack.enter_async_context(running(party, roots[party])) for party in ("shop", "telco")}
    peers = {party: host.address for party, host in hosts.items()}
    bank = await stack.enter_async_context(running("bank", roots["bank"], peers=peers))
    outcomes, _ = await bank.publishing.load(ModelId("trio", "1"))
    assert [one.party for one in outcomes] == ["bank", "shop", "telco"]
    await bank.publishing.online("s", 0, all_of(ModelId("trio", "1")))
    assert all(len(held(host)) == 1 for host in hosts.values())

    await hosts["telco"].publishing.unload(ModelId("trio", "1"), force=True)
    with pytest.raises(ConflictError, match="telco") as refused:
        await bank.publishing.online("t", 0, all_of(ModelId("trio", "1")))
    assert "shop" not in str(refused.value)
    assert [service for _, service, _ in held(hosts["shop"])] == ["s"]


async def test_versions_of_one_service_give_equally_many_scores(loaded: Party, registries: dict[str, Path]) -> None:
    wide = ModelId("wide", "1")
    half, files = linear_half("wide", "1", "guest", "bank", {"x": 1.0})
    outputs = (msgspec.structs.replace(half.outputs[0], shape=(-1, 2)),)
    half = msgspec.structs.replace(half, outputs=outputs, self_test=None)

    def publish_wide() -> None:
        digest = write_half(registries["bank"], half, {**files, "weights.npy": npy([[1.0, 2.0]])})
        bind(half_path(registries["bank"], "wide", "1", "guest", "bank"), [HalfRef("guest", "bank", digest)])

    await asyncio.to_thread(publish_wide)
    await loaded.publishing.load(wide)
    with pytest.raises(ConflictError, match="m/1 gives 1, wide/1 gives 2"):
        await loaded.publishing.online("s", 0, [VariantWeight(V1, 5_000), VariantWeight(wide, 5_000)])
    assert not loaded.publishing.state().services
