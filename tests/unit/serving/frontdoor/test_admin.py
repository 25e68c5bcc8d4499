"""The admin port as an operator's client sees it, with a host behind it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio

from apps.catalog import make_app
from serving.audit import FILE, Event, Record
from serving.errors import LimitError
from serving.pool import ModelId
from serving.routing import Target
from serving.settings import LogLevel, RateLimit
from serving.telemetry.logs import follow_level
from serving.transport import Code, RpcError
from tessera.v1 import admin_pb2 as wire
from tessera.v1 import federation_pb2
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1, V2 = ModelId("m", "1"), ModelId("m", "2")
MISSING = ModelId("m", "9")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """V1 and V2 at bank (guest) and shop; version 9 only at bank."""
    folder = tmp_path_factory.mktemp("published")
    for model in (V1, V2):
        publish({party: folder / party for party in ("bank", "shop")}, model)
    publish({"bank": folder / "bank", "shop": folder / "elsewhere"}, MISSING)
    return folder


@pytest_asyncio.fixture
async def parties(published: Path, registries: dict[str, Path]) -> AsyncIterator[tuple[Party, Party]]:
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(running("shop", registries["shop"]))
        bank = await stack.enter_async_context(running("bank", registries["bank"], peers={"shop": shop.address}))
        yield bank, shop


@pytest.fixture
def registries(published: Path, tmp_path: Path) -> dict[str, Path]:
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return {party: tmp_path / party for party in ("bank", "shop")}


@pytest.fixture
def bank(parties: tuple[Party, Party]) -> Party:
    return parties[0]


@pytest.fixture
def shop(parties: tuple[Party, Party]) -> Party:
    return parties[1]


def load(model: ModelId) -> wire.PublishLoadRequest:
    return wire.PublishLoadRequest(model=model.model, version=model.version)


def weight(model: ModelId, points: int = 10_000) -> wire.VariantWeight:
    return wire.VariantWeight(model=model.model, version=model.version, weight=points)


def online(*variants: wire.VariantWeight, revision: int = 0, **fields: Any) -> wire.PublishOnlineRequest:
    return wire.PublishOnlineRequest(service="s", revision=revision, variants=variants, **fields)


async def refused(call: Any) -> tuple[Code, str]:
    with pytest.raises(RpcError) as error:
        await call
    return error.value.code, error.value.details


async def test_load_says_what_each_replica_did(bank: Party) -> None:
    reply = await bank.admin.PublishLoad(load(V1))
    assert [(one.party, one.replica, one.state, one.reason) for one in reply.replicas] == [
        ("bank", "0", federation_pb2.LOAD_STATE_LOADED, ""),
        ("shop", "0", federation_pb2.LOAD_STATE_LOADED, ""),
    ]
    assert reply.binding_digest.hex() == bank.pool.acquire(V1).artifact.binding_digest
    again = await bank.admin.PublishLoad(load(V1))
    assert {one.state for one in again.replicas} == {federation_pb2.LOAD_STATE_ALREADY_LOADED}


async def test_a_partial_load_is_an_answer_not_an_error(bank: Party) -> None:
    reply = await bank.admin.PublishLoad(load(MISSING))
    assert [one.state for one in reply.replicas] == [federation_pb2.LOAD_STATE_LOADED, federation_pb2.LOAD_STATE_FAILED]
    assert "no half of m/9 for party 'shop'" in reply.replicas[1].reason


async def test_online_rollback_and_lists(bank: Party) -> None:
    for model in (V1, V2):
        await bank.admin.PublishLoad(load(model))
    first = await bank.admin.PublishOnline(online(weight(V1)))
    assert first == wire.PublishOnlineReply(service="s", revision=1, variants=[weight(V1)])
    split = [weight(V1, 9_000), weight(V2, 1_000)]
    parameters = '{"factor": 20}'
    await bank.admin.PublishOnline(online(*split, revision=1, app="scorecard", app_parameters=parameters))
    await bank.admin.SetDefaultService(wire.SetDefaultServiceRequest(service="s"))
    [status] = (await bank.admin.ListServices(wire.ListServicesRequest())).services
    assert status == wire.ServiceStatus(
        service="s",
        revision=2,
        variants=split,
        previous=[weight(V1)],
        app="scorecard",
        app_parameters=parameters,
        is_default=True,
    )
    back = await bank.admin.Rollback(wire.RollbackRequest(service="s", revision=2))
    assert back == wire.PublishOnlineReply(service="s", revision=3, variants=[weight(V1)])


async def test_a_shadow_is_bound_held_and_listed(bank: Party, shop: Party) -> None:
    for model in (V1, V2):
        await bank.admin.PublishLoad(load(model))
    bound = await bank.admin.PublishOnline(online(weight(V1), shadows=[weight(V2, 500)]))
    assert (bound.variants, bound.shadows) == ([weight(V1)], [weight(V2, 500)])
    [status] = (await bank.admin.ListServices(wire.ListServicesRequest())).services
    assert status.shadows == [weight(V2, 500)]
    for party in (bank, shop):
        code, _ = await refused(party.admin.Unload(wire.UnloadRequest(model="m", version="2")))
        assert code is Code.FAILED_PRECONDITION
    await bank.admin.PublishOnline(online(weight(V1), revision=1))
    back = await bank.admin.Rollback(wire.RollbackRequest(service="s", revision=2))
    assert back.shadows == [weight(V2, 500)]


async def test_models_are_listed_with_state_digest_and_who_needs_them(bank: Party, registries: dict[str, Path]) -> None:
    await bank.admin.PublishLoad(load(V1))
    await bank.admin.PublishOnline(online(weight(V1)))
    next(registries["bank"].glob("m/2/*/weights.npy")).write_bytes(b"damaged")
    await refused(bank.admin.PublishLoad(load(V2)))
    ready, failed = (await bank.admin.ListModels(wire.ListModelsRequest())).models
    handle = bank.pool.acquire(V1)
    life = bank.reconciler.lives[V1]
    assert ready == wire.ModelStatus(
        model="m",
        version="1",
        state="READY",
        since_ms=int(life.since_s * 1_000),
        role="guest",
        format="tessera",
        bytes=handle.bytes,
        binding_digest=bytes.fromhex(handle.artifact.binding_digest),
        held_by=["service 's'"],
        replicas=[
            wire.ReplicaState(
                replica="0",
                generation=bank.publishing.heard()[0].generation,
                state="READY",
                binding_digest=bytes.fromhex(handle.artifact.binding_digest),
            )
        ],
    )
    assert (failed.version, failed.state, failed.role) == ("2", "FAILED", "")
    assert "weights.npy is corrupt" in failed.reason


async def test_unload_lets_go_here_only(bank: Party, shop: Party) -> None:
    await bank.admin.PublishLoad(load(V1))
    await bank.admin.Unload(wire.UnloadRequest(model="m", version="1"))
    assert not (await bank.admin.ListModels(wire.ListModelsRequest())).models
    assert shop.pool.find(V1)


async def test_a_host_refuses_to_unload_what_a_guest_holds_unless_forced(bank: Party, shop: Party) -> None:
    await bank.admin.PublishLoad(load(V1))
    await bank.admin.PublishOnline(online(weight(V1)))
    code, text = await refused(shop.admin.Unload(wire.UnloadRequest(model="m", version="1")))
    assert (code, "party 'bank' (service 's')" in text) == (Code.FAILED_PRECONDITION, True)
    await shop.admin.Unload(wire.UnloadRequest(model="m", version="1", force=True))
    assert shop.pool.find(V1) is None


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"),
    [
        ("PublishLoad", wire.PublishLoadRequest(model="m"), Code.INVALID_ARGUMENT, "name a model and a version"),
        ("PublishLoad", load(ModelId("m", "7")), Code.NOT_FOUND, "no half of m/7 for party 'bank'"),
        ("PublishLoad", load(ModelId("../m", "1")), Code.FAILED_PRECONDITION, "is not a name"),
        ("PublishOnline", online(weight(V2)), Code.FAILED_PRECONDITION, "m/2 is not loaded at this party"),
        ("PublishOnline", online(weight(V1), revision=4), Code.FAILED_PRECONDITION, "is at revision 0, not 4"),
        ("PublishOnline", online(weight(V1, 100)), Code.INVALID_ARGUMENT, "sum to 10000"),
        ("PublishOnline", online(), Code.INVALID_ARGUMENT, "sum to 10000"),
        ("PublishOnline", online(weight(V1), app="x"), Code.INVALID_ARGUMENT, "unknown app 'x'"),
        ("PublishOnline", wire.PublishOnlineRequest(variants=[weight(V1)]), Code.INVALID_ARGUMENT, "name a service"),
        ("PublishOnline", online(weight(MISSING)), Code.FAILED_PRECONDITION, "party 'shop'"),
        (
            "PublishOnline",
            online(weight(V1), shadows=[weight(V1)]),
            Code.INVALID_ARGUMENT,
            "twice among variants and shadows",
        ),
        ("PublishOnline", online(weight(V1), shadows=[weight(V2, 0)]), Code.INVALID_ARGUMENT, "1 to 10000"),
        ("Rollback", wire.RollbackRequest(service="x"), Code.NOT_FOUND, "unknown service 'x'"),
        ("Unload", wire.UnloadRequest(model="m", version="7"), Code.NOT_FOUND, "m/7 is not loaded"),
        ("SetDefaultService", wire.SetDefaultServiceRequest(service="x"), Code.NOT_FOUND, "unknown service 'x'"),
        (
            "Feedback",
            wire.FeedbackRequest(outcomes=[wire.Outcome(label=0.5)]),
            Code.INVALID_ARGUMENT,
            "outcomes[0].label is 0.5, it must be 0 or 1",
        ),
        ("Prefetch", wire.PrefetchRequest(), Code.INVALID_ARGUMENT, "the call names no users"),
        ("Activity", wire.ActivityRequest(), Code.INVALID_ARGUMENT, "ask for 1 to 10000 users"),
    ],
)
async def test_refusals_are_one_clear_status(bank: Party, method: str, request_: Any, code: Code, text: str) -> None:
    await bank.admin.PublishLoad(load(V1))
    await bank.admin.PublishLoad(load(MISSING))
    before = bank.publishing.state()
    answered, details = await refused(getattr(bank.admin, method)(request_))
    assert answered is code
    assert text in details
    assert bank.publishing.state() == before


async def test_a_defect_of_ours_answers_with_a_request_id_only(
    bank: Party, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("internal detail")

    monkeypatch.setattr(bank.publishing, "models", broken)
    code, text = await refused(bank.admin.ListModels(wire.ListModelsRequest()))
    assert code is Code.INTERNAL
    assert "internal detail" not in text
    assert text.removeprefix("internal error, request id ") in caplog.text
    assert "internal detail" in caplog.text


async def test_feedback_and_figures(bank: Party) -> None:
    target = Target(V1, make_app("passthrough"), "m:1", "s", 1)
    made = [
        bank.effects.answered(target, np.array([[score]]), [0.001], attributed=True)[0]
        for score in (0.1, 0.4, 0.3, 0.8)
    ]
    outcomes = [wire.Outcome(attribution=one, label=label) for one, label in zip(made, (0, 1, 0, 1), strict=True)]
    junk = wire.Outcome(attribution=b"junk", label=1)
    asked = wire.FeedbackRequest(outcomes=[*outcomes, junk])
    assert await bank.admin.Feedback(asked) == wire.FeedbackReply(accepted=4, refused=[4])
    assert await bank.admin.Feedback(asked) == wire.FeedbackReply(known=4, refused=[4])
    [found] = (await bank.admin.Figures(wire.FiguresRequest(service="s"))).variants
    assert (found.variant, found.answers, found.positives, found.negatives) == ("m:1", 4, 2, 2)
    assert (found.auc, found.ks) == (1.0, 1.0)
    assert not (await bank.admin.Figures(wire.FiguresRequest(service="other"))).variants


async def test_peers_are_shown_from_both_sides(bank: Party, shop: Party) -> None:
    await bank.admin.PublishLoad(load(V1))
    await shop.admin.Unload(wire.UnloadRequest(model="m", version="1"))
    await bank.admin.PublishLoad(load(V2))
    [itself, host] = (await bank.admin.ListPeers(wire.ListPeersRequest())).peers
    assert (itself.party, itself.problem) == ("bank", "has no address in the settings")
    assert (host.party, host.problem, host.protocol, host.takes_us_for) == ("shop", "", "1.0", "bank")
    assert host.round_trip_s > 0
    assert [(half.version, half.state) for half in host.halves] == [
        ("1", federation_pb2.HALF_STATE_NOT_LOADED),
        ("2", federation_pb2.HALF_STATE_READY),
    ]
    [guest] = (await shop.admin.ListPeers(wire.ListPeersRequest())).peers
    assert (guest.party, guest.budget, guest.spent, guest.refused) == ("bank", 1_000, 0, 0)
    assert (list(guest.may_load), list(guest.purposes), guest.HasField("users")) == (["*"], ["infer"], False)
    assert guest.window_ends_ms > 1_000 * time.time()


async def test_a_peer_that_does_not_answer_says_why(registries: dict[str, Path]) -> None:
    async with running("bank", registries["bank"], peers={"shop": "127.0.0.1:1"}) as bank:
        [_, host] = (await bank.admin.ListPeers(wire.ListPeersRequest())).peers
        assert "does not answer at its address" in host.problem


async def test_the_log_level_is_set_for_all_replicas_and_audited(
    bank: Party, registries: dict[str, Path], restored_logging: None
) -> None:
    bank.publishing.watch(follow_level(LogLevel.INFO))
    for level, expected in (("debug", logging.DEBUG), ("error", logging.ERROR), ("", logging.INFO)):
        await bank.admin.SetLogLevel(wire.SetLogLevelRequest(level=level))
        assert logging.getLogger().level == expected
        assert bank.publishing.state().log_level == level
    assert audited(registries["bank"], "SetLogLevel") == [("", "debug"), ("debug", "error"), ("error", "")]
    assert await refused(bank.admin.SetLogLevel(wire.SetLogLevelRequest(level="loud"))) == (
        Code.INVALID_ARGUMENT,
        "unknown log level 'loud'; known: debug, info, warning, error",
    )


def limited(kind: wire.LimitKind, name: str, **bounds: float) -> wire.SetLimitRequest:
    return wire.SetLimitRequest(kind=kind, name=name, limit=wire.Limit(**bounds))  # type: ignore[arg-type]


async def test_limits_are_set_listed_cleared_and_audited(bank: Party, registries: dict[str, Path]) -> None:
    service, caller = wire.LIMIT_KIND_SERVICE, wire.LIMIT_KIND_CALLER
    await bank.admin.SetLimit(limited(service, "s", per_s=2, burst=3))
    await bank.admin.SetLimit(limited(caller, "default", concurrent=4, per_s=6, across_nodes=True))
    assert list((await bank.admin.ListLimits(wire.ListLimitsRequest())).limits) == [
        wire.LimitStatus(kind=service, name="s", limit=wire.Limit(per_s=2, burst=3), is_set=True),
        wire.LimitStatus(
            kind=caller, name="default", limit=wire.Limit(concurrent=4, per_s=6, across_nodes=True), is_set=True
        ),
    ]
    bank.limiter.take("s", "", 3)
    with pytest.raises(LimitError, match="service 's' is limited to 2 rows a second"):
        bank.limiter.take("s", "", 1)
    await bank.admin.SetLimit(limited(service, "s", per_s=0))
    with pytest.raises(LimitError, match="service 's' is closed"):
        bank.limiter.take("s", "", 1)
    clear = wire.ClearLimitRequest(kind=service, name="s")
    assert await bank.admin.ClearLimit(clear) == wire.ClearLimitReply(cleared=True)
    assert await bank.admin.ClearLimit(clear) == wire.ClearLimitReply()
    bank.limiter.take("s", "", 1_000)
    folder = registries["bank"]
    bound = {"per_s": 2.0, "burst": 3, "concurrent": None, "across_nodes": False}
    closed = {"per_s": 0.0, "burst": None, "concurrent": None, "across_nodes": False}
    assert audited(folder, "SetLimit") == [
        (None, bound),
        (None, {"per_s": 6.0, "burst": None, "concurrent": 4, "across_nodes": True}),
        (bound, closed),
    ]
    assert audited(folder, "ClearLimit") == [(closed, None), (None, None)]
    subjects = [msgspec.json.decode(line, type=Record).subject for line in (folder / FILE).read_bytes().splitlines()]
    assert subjects[:3:2] == ["service s", "caller default"]


async def test_a_cleared_limit_gives_way_to_that_of_the_settings(registries: dict[str, Path]) -> None:
    party = wire.LIMIT_KIND_PARTY
    async with running("shop", registries["shop"], limit=RateLimit(per_s=5)) as shop:
        await shop.admin.SetLimit(limited(party, "bank", per_s=1))
        [status] = (await shop.admin.ListLimits(wire.ListLimitsRequest())).limits
        assert (status.limit, status.is_set, status.settings) == (wire.Limit(per_s=1), True, wire.Limit(per_s=5))
        reply = await shop.admin.ClearLimit(wire.ClearLimitRequest(kind=party, name="bank"))
    settings = wire.LimitStatus(kind=party, name="bank", limit=wire.Limit(per_s=5), settings=wire.Limit(per_s=5))
    assert reply == wire.ClearLimitReply(cleared=True, status=settings)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (limited(wire.LIMIT_KIND_UNSPECIFIED, "s"), "say what is limited: service, model, caller, party, resource"),
        (limited(99, "s"), "say what is limited: service, model, caller, party, resource"),  # type: ignore[arg-type]
        (limited(wire.LIMIT_KIND_SERVICE, ""), "name a service, in up to 256 characters"),
        (limited(wire.LIMIT_KIND_MODEL, 257 * "m"), "name a model, in up to 256 characters"),
        (limited(wire.LIMIT_KIND_SERVICE, "s", per_s=-1), "a rate is 0 to 1e+09 rows a second, not -1"),
        (limited(wire.LIMIT_KIND_SERVICE, "s", per_s=float("nan")), "a rate is 0 to 1e+09 rows a second, not nan"),
        (limited(wire.LIMIT_KIND_SERVICE, "s", burst=5), "a burst needs a rate"),
        (
            limited(wire.LIMIT_KIND_SERVICE, "s", concurrent=5, across_nodes=True),
            "what nodes share is a rate: give one",
        ),
        (limited(wire.LIMIT_KIND_SERVICE, "s", per_s=1, burst=0), "a burst is 1 to 2^40, not 0"),
        (limited(wire.LIMIT_KIND_SERVICE, "s", concurrent=0), "a number of calls at once is 1 to 2^40, not 0"),
        (
            limited(wire.LIMIT_KIND_RESOURCE, "x", per_s=1),
            "a resource is I_ and a method or M_ and a model of FATE's, not 'x'",
        ),
        (limited(wire.LIMIT_KIND_RESOURCE, "I_x", concurrent=1), "calls at once are not counted by resource"),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused(bank: Party, request_: wire.SetLimitRequest, text: str) -> None:
    assert await refused(bank.admin.SetLimit(request_)) == (Code.INVALID_ARGUMENT, text)
    assert bank.publishing.state().limits == {}


def audited(folder: Path, what: str) -> list[tuple[Any, Any]]:
    """The state before and after each change."""
    records = [msgspec.json.decode(line, type=Record) for line in (folder / FILE).read_bytes().splitlines()]
    asked = {one.id: one.state for one in records if one.what == what and one.event is Event.ASKED}
    return [(asked[one.id], one.state) for one in records if one.what == what and one.event is Event.DONE]


async def test_what_a_guest_changes_at_a_host_is_audited_there(bank: Party, registries: dict[str, Path]) -> None:
    await bank.admin.PublishLoad(load(V1))
    await bank.admin.PublishOnline(online(weight(V1)))
    await bank.publishing.keep_holds()
    await bank.admin.PublishLoad(load(V2))
    await bank.admin.PublishOnline(online(weight(V2), revision=1))
    await bank.admin.PublishOnline(online(weight(V2), revision=2))
    folder = registries["shop"]
    assert audited(folder, "Federation/Load") == [("NEW", "READY"), ("NEW", "READY")]
    held = audited(folder, "Federation/Hold")
    assert [(len(before or ()), len(after)) for before, after in held[:2]] == [(0, 1), (0, 1)]
    assert held[0][1][0]["party"] == "bank"
    [(before, after)] = audited(folder, "Federation/Release")
    assert (before[0]["version"], after) == ("1", [])
    records = [msgspec.json.decode(line, type=Record) for line in (folder / FILE).read_bytes().splitlines()]
    assert {one.who for one in records} == {"party bank"}


async def test_a_load_that_a_host_refuses_is_audited_there(bank: Party, registries: dict[str, Path]) -> None:
    await bank.admin.PublishLoad(load(MISSING))
    records = [msgspec.json.decode(line, type=Record) for line in (registries["shop"] / FILE).read_bytes().splitlines()]
    assert [one.event for one in records] == [Event.ASKED, Event.REFUSED]
    assert "no half of m/9" in records[1].reason


async def test_prefetch_says_for_each_user_what_came_of_it(bank: Party) -> None:
    await bank.admin.PublishLoad(load(V1))
    request = wire.PrefetchRequest(model="m", version="1", user_ids=["u1"])
    reply = await bank.admin.Prefetch(request)
    assert list(reply.outcomes) == [wire.PREFETCH_OUTCOME_REFUSED]
    assert "peers.bank.purposes" in reply.reason


async def test_activity_lists_users_by_their_counts(bank: Party) -> None:
    bank.activity.count("s", ("a", "b", "b"))
    today = int(time.time()) // 86_400
    reply = await bank.admin.Activity(wire.ActivityRequest(service="s", first_day=today - 1, last_day=today, limit=5))
    assert (list(reply.user_ids), list(reply.counts)) == (["b", "a"], [2, 1])
    assert (reply.total_users, reply.total_count) == (2, 3)


async def test_a_service_is_removed_once_and_audited_with_what_it_was(bank: Party, registries: dict[str, Path]) -> None:
    await bank.admin.PublishLoad(load(V1))
    await bank.admin.PublishOnline(online(weight(V1)))
    request = wire.RemoveServiceRequest(service="s", revision=1)
    assert [(await bank.admin.RemoveService(request)).removed for _ in range(2)] == [True, False]
    assert not (await bank.admin.ListServices(wire.ListServicesRequest())).services
    (before, after), again = audited(registries["bank"], "RemoveService")
    assert (before["revision"], after) == (1, None)
    assert again == (None, None)
