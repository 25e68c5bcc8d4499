"""One request through the pipeline: real pool, real halves, hosts in this process."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from msgspec import structs

from apps.app import App, AppError, CacheLevel, PartyStatus, Request, Response, Result, features_of
from apps.catalog import make_app
from loaders.catalog import load_servable, loader_for
from loaders.cost import Cost
from loaders.loader import Outputs, Scores, Servable
from loaders.merge import merge_rule
from loaders.registry import open_half
from loaders.signature import Batch, FeatureError, Signature
from serving.cache.result import NoResults, ResultCache
from serving.codec import Codec
from serving.errors import (
    DeadlineError,
    InvalidRequestError,
    LimitError,
    PeerUnavailableError,
    UnknownNameError,
    UnknownUserError,
)
from serving.features.memory import MemoryFeatureSource
from serving.figures.effects import Effects
from serving.figures.store import MemoryFigureStore
from serving.host import HostSide
from serving.limits import Limiter
from serving.peers.fallback import Fallbacks
from serving.peers.memory import LocalHosts
from serving.peers.partials import Lookup, Piece
from serving.pipeline import Answers, Pipeline
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.routing import BUCKETS, Routes, RouteTable, ServiceRoute, VariantRoute, bucket
from serving.settings import FallbackPolicy, FallbackSettings, Limits, RateLimit
from tests.artifacts import make_bound_pair
from tests.clock import Clock

USERS = {"u1": {"x": 1.0}, "u2": {"x": -2.0}, "u4": {"x": 0.5}}
GUEST_WEIGHT = {"1": 0.5, "2": -0.5}
PASS_THROUGH, SCORECARD = make_app("passthrough"), make_app("scorecard", '{"offset": 600}')
LABELLING = make_app("threshold", '{"below": "no", "steps": [{"at": 0.0, "label": "yes"}]}')


def sigmoid(linear: float) -> float:
    return 1 / (1 + math.exp(-linear))


def expected(user: str, feature: float, version: str = "1") -> float:
    return sigmoid(0.25 + GUEST_WEIGHT[version] * feature + 2 * USERS[user]["x"])


class JsonCodec(Codec):
    """Requests by name and answers as text: the smallest protocol that there can be."""

    name, protocol = "test/Predict", "test"

    def __init__(self, requests: Mapping[bytes, Request]) -> None:
        self._requests = requests

    def decode(self, raw: bytes) -> Request:
        return self._requests[raw]

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        return f"{level.name} {response.scores.tolist()}".encode()


class Broken(App):
    """Raises where its parameters say."""

    name = "broken"

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        if self.parameters == "before":
            raise ZeroDivisionError
        return features_of(request, signature)

    def postprocess(self, request: Request, result: Result) -> Result:
        raise ZeroDivisionError


class Slow(App):
    """Takes a second."""

    name = "slow"
    clock = Clock(0.0)

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        self.clock.tick(1.0)
        return features_of(request, signature)

    def postprocess(self, request: Request, result: Result) -> Result:
        return result


class Listening(MemoryFeatureSource):
    """Remembers what it was asked."""

    def __init__(self, users: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__(users)
        self.asked: list[list[str]] = []

    async def lookup(self, user_ids, signature):
        self.asked.append(list(user_ids))
        return await super().lookup(user_ids, signature)


class SlowSource(MemoryFeatureSource):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(USERS)
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.cancelled = False

    async def lookup(self, user_ids, signature):
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return await super().lookup(user_ids, signature)

    def at_hand(self, signature):
        return None


@dataclass
class World:
    pipeline: Pipeline
    pool: ModelPool
    table: RouteTable
    clock: Clock
    effects: Effects
    seen: list[tuple[str, Sequence[str] | bytes]]

    def bind(self, *variants: tuple[str, int], app: App | None = None, epoch: int = 1) -> None:
        """Service `s` with these versions and weights."""
        routes, low = [], 0
        for version, weight in variants:
            routes.append(VariantRoute(f"m:{version}", ModelId("m", version), ((low, low + weight),)))
            low += weight
        chosen = app or PASS_THROUGH
        service = ServiceRoute("s", epoch, b"salt", tuple(routes), chosen)
        self.table.current = Routes(PASS_THROUGH, epoch, {"s": service}, "s")


def loaded(root: Path, version: str, party: str) -> ModelHandle:
    artifact = open_half(root, "m", version, party)
    loader = loader_for(artifact)
    servable = load_servable(loader)
    return ModelHandle(artifact, servable, merge_rule(artifact.manifest.merge, servable), loader.estimate())


def make_world(
    folder: Path,
    source: MemoryFeatureSource,
    limits: Limits,
    fallback: FallbackSettings | None = None,
    now: Callable[[], float] = time.monotonic,
) -> World:
    pools = {"bank": ModelPool(1 << 20), "shop": ModelPool(1 << 20)}
    for version, weight in GUEST_WEIGHT.items():
        make_bound_pair(
            folder / "bank",
            folder / "shop",
            model="m",
            version=version,
            guest="bank",
            host="shop",
            guest_weights={"a": weight},
            host_weights={"x": 2.0},
            intercept=0.25,
        )
        for party, pool in pools.items():
            pool.put(loaded(folder / party, version, party))
    clock = Clock()
    table = RouteTable(Routes(PASS_THROUGH))
    hosts = LocalHosts({"shop": HostSide(pools["shop"], {"default": source})})
    effects = Effects(MemoryFigureStore(), b"s" * 32)
    seen: list[tuple[str, Sequence[str] | bytes]] = []
    fallbacks = Fallbacks({"s": fallback} if fallback else {})
    results = ResultCache(100, 120.0, clock, mark=lambda user: user.encode()[::-1])
    answers = Answers(
        results,
        effects,
        lambda service, users: seen.append((service, users)),
        lambda service, mark: seen.append((service, mark)),
        fallbacks,
    )
    pipeline = Pipeline(table, pools["bank"], hosts, answers, Limiter(limits), now)
    world = World(pipeline, pools["bank"], table, clock, effects, seen)
    world.bind(("1", BUCKETS))
    return world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    yield await asyncio.to_thread(make_world, tmp_path, MemoryFeatureSource(USERS), Limits(max_batch_rows=50))


def request(user: str = "u1", feature: float = 1.0, **fields: object) -> Request:
    return structs.replace(Request("s", "", "", "", (user,), numbers={"a": feature}), **fields)


def batch(users: list[str], features: list[float], **fields: object) -> Request:
    return structs.replace(Request("s", "", "", "", tuple(users), numbers={"a": features}, columnar=True), **fields)


async def answered(world: World, codec: JsonCodec, raw: bytes) -> str:
    reply = world.pipeline.answer(codec, raw, None)
    return (reply if isinstance(reply, bytes) else await reply).decode()


def score(reply: str, level: str) -> float:
    """The score of an encoded answer that came from `level`."""
    assert reply.startswith(f"{level} ")
    return float(reply.split("[[")[1].rstrip("]"))


async def test_a_score_merges_both_halves(world: World) -> None:
    response = await world.pipeline.predict(request("u2", 3.0), None)
    assert response.scores.tolist() == [[pytest.approx(expected("u2", 3.0), abs=1e-12)]]
    assert (response.model, response.version, response.variants) == ("m", "1", ("m:1",))
    assert response.complete
    assert [(part.party, part.statuses, part.levels) for part in response.parties] == [
        ("shop", (PartyStatus.OK,), (CacheLevel.NONE,))
    ]


async def test_a_repeated_case_is_answered_without_waiting(world: World) -> None:
    codec = JsonCodec({b"1": request(case_id="c")})
    first = await answered(world, codec, b"1")
    again = world.pipeline.answer(codec, b"1", None)
    assert isinstance(again, bytes)
    assert first.startswith("NONE ")
    assert again.decode() == first.replace("NONE", "L1")


async def test_every_call_tells_of_its_users_also_a_repeat(world: World) -> None:
    codec = JsonCodec({b"1": request(case_id="c"), b"2": request("u2")})
    for raw in (b"1", b"1", b"2"):
        await answered(world, codec, raw)
    assert world.seen == [("s", ("u1",)), ("s", b"1u"), ("s", ("u2",))]


async def test_a_retry_that_serialises_differently_finds_its_case(world: World) -> None:
    codec = JsonCodec({b"1": request(case_id="c"), b"2": request(case_id="c"), b"3": request("u2", case_id="c")})
    await answered(world, codec, b"1")
    assert (await answered(world, codec, b"2")).startswith("L1 ")
    assert (await answered(world, codec, b"3")).startswith("NONE ")


async def test_without_a_case_nothing_is_kept(world: World) -> None:
    codec = JsonCodec({b"1": request()})
    await answered(world, codec, b"1")
    assert (await answered(world, codec, b"1")).startswith("NONE ")


async def test_a_kept_answer_ends_with_its_time_and_with_its_route(world: World) -> None:
    codec = JsonCodec({b"1": request(case_id="c")})
    await answered(world, codec, b"1")
    world.clock.tick(119)
    assert (await answered(world, codec, b"1")).startswith("L1 ")
    world.bind(("2", BUCKETS), epoch=2)
    assert score(await answered(world, codec, b"1"), "NONE") == pytest.approx(expected("u1", 1.0, "2"))
    world.clock.tick(121)
    assert (await answered(world, codec, b"1")).startswith("NONE ")


async def test_an_answer_computed_before_a_change_is_not_kept_after_it(tmp_path: Path) -> None:
    source = SlowSource()
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits(peer_timeout_s=30))
    codec = JsonCodec({b"1": request(case_id="c")})
    slow = asyncio.create_task(answered(world, codec, b"1"))
    await source.asked.wait()
    world.bind(("2", BUCKETS), epoch=2)
    source.go_on.set()
    assert score(await slow, "NONE") == pytest.approx(expected("u1", 1.0))
    assert score(await answered(world, codec, b"1"), "NONE") == pytest.approx(expected("u1", 1.0, "2"))


async def test_users_of_one_batch_meet_their_own_variants(world: World) -> None:
    world.bind(("1", 5_000), ("2", 5_000))
    users, features = ["u1", "u4", "u2"] * 3, [0.1 * row for row in range(9)]
    response = await world.pipeline.predict(batch(users, features), None)
    versions = ["1" if bucket(b"salt", user) < 5_000 else "2" for user in users]
    assert set(versions) == {"1", "2"}, "choose other users"
    assert response.variants == tuple(f"m:{version}" for version in versions)
    wanted = [
        expected(user, feature, version) for user, feature, version in zip(users, features, versions, strict=True)
    ]
    assert response.scores[:, 0].tolist() == pytest.approx(wanted, abs=1e-12)
    assert (response.model, response.version) == ("", "")
    assert response.parties[0].statuses == (PartyStatus.OK,) * 9


async def test_a_row_without_its_user_says_so_and_the_others_score(world: World) -> None:
    response = await world.pipeline.predict(batch(["u1", "nobody", "u4"], [1.0, 1.0, 1.0]), None)
    assert [math.isnan(score) for score in response.scores[:, 0]] == [False, True, False]
    assert response.parties[0].statuses == (PartyStatus.OK, PartyStatus.NOT_FOUND, PartyStatus.OK)
    assert not response.complete


async def test_a_row_without_a_score_has_no_label(world: World) -> None:
    world.bind(("1", BUCKETS), app=LABELLING)
    response = await world.pipeline.predict(batch(["u1", "nobody", "u4"], [1.0, 1.0, 1.0]), None)
    assert response.labels == ("yes", "", "yes")


async def test_an_unknown_user_names_the_party(world: World) -> None:
    with pytest.raises(UnknownUserError, match="'shop' does not know"):
        await world.pipeline.predict(request("nobody"), None)


async def test_a_party_that_does_not_answer_is_named_with_its_status(tmp_path: Path) -> None:
    world = await asyncio.to_thread(make_world, tmp_path, SlowSource(), Limits(peer_timeout_s=0.02))
    with pytest.raises(PeerUnavailableError, match="'shop': timeout"):
        await world.pipeline.predict(request(), None)


async def test_the_callers_deadline_bounds_the_wait(tmp_path: Path) -> None:
    world = await asyncio.to_thread(make_world, tmp_path, SlowSource(), Limits(peer_timeout_s=3_600))
    with pytest.raises(PeerUnavailableError, match="'shop': timeout"):
        await world.pipeline.predict(request(), 0.02)


async def test_what_stands_in_for_a_host_that_stalls_comes_before_the_callers_deadline(tmp_path: Path) -> None:
    fallback = FallbackSettings(policy=FallbackPolicy.DEFAULT, score=0.125)
    limits = Limits(peer_timeout_s=3_600)
    world = await asyncio.to_thread(make_world, tmp_path, SlowSource(), limits, fallback)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 2.0
    response = await world.pipeline.predict(request(), 2.0)
    assert response.scores.tolist() == [[0.125]]
    assert loop.time() < deadline


async def test_a_spent_deadline_does_nothing(world: World) -> None:
    with pytest.raises(DeadlineError):
        await world.pipeline.predict(request(), 0.0)


async def test_calls_of_one_turn_ask_a_host_once_and_score_as_each_alone(tmp_path: Path) -> None:
    source = Listening(USERS)
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits())
    users, features = ["u1", "u2", "u4"] * 3, [0.3 * row for row in range(9)]
    calls = [world.pipeline.predict(request(*pair), None) for pair in zip(users, features, strict=True)]
    together = await asyncio.gather(*calls)
    assert source.asked == [users]
    for user, feature, response in zip(users, features, together, strict=True):
        alone = await world.pipeline.predict(request(user, feature), None)
        assert (
            response.scores.tolist() == alone.scores.tolist() == [[pytest.approx(expected(user, feature), abs=1e-12)]]
        )
        assert (response.parties, response.variants) == (alone.parties, alone.variants)
    assert len(source.asked) == 10


async def test_a_wrong_call_spoils_none_of_those_beside_it(world: World) -> None:
    """Whatever is wrong, and wherever it shows."""
    wrong = {
        1: request("u1", numbers={}),
        3: request("u2", numbers={"a": math.inf}),
        4: request(""),
        6: request("nobody"),
    }
    calls = [world.pipeline.predict(wrong.get(place, request("u1", 0.1 * place)), None) for place in range(8)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    kinds = {place: type(one) for place, one in enumerate(found) if isinstance(one, Exception)}
    assert kinds == {1: FeatureError, 3: FeatureError, 4: InvalidRequestError, 6: UnknownUserError}
    for place in (0, 2, 5, 7):
        assert found[place].scores.tolist() == [[pytest.approx(expected("u1", 0.1 * place), abs=1e-12)]]


async def test_an_app_that_fails_for_one_call_fails_that_call(world: World) -> None:
    class Picky(App):
        name = "picky"

        def preprocess(self, request: Request, signature: Signature) -> Batch:
            return features_of(request, signature)

        def postprocess(self, request: Request, result: Result) -> Result:
            if (result.feature("a") > 5).any():
                raise ZeroDivisionError
            return result

    world.bind(("1", BUCKETS), app=Picky(None))
    calls = [world.pipeline.predict(request("u1", feature), None) for feature in (1.0, 6.0, 2.0)]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, AppError)
    assert [first.scores[0, 0], third.scores[0, 0]] == pytest.approx([expected("u1", 1.0), expected("u1", 2.0)])


async def test_the_host_is_asked_while_anybody_waits_and_no_longer(tmp_path: Path) -> None:
    source = SlowSource()
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits(peer_timeout_s=3_600))
    first, second = (asyncio.ensure_future(world.pipeline.predict(request(user), None)) for user in ("u1", "u2"))
    await source.asked.wait()
    first.cancel()
    await asyncio.sleep(0)
    assert not source.cancelled
    second.cancel()
    await asyncio.wait_for(source_cancelled(source), 5)


async def test_what_needs_nobody_else_is_answered_without_a_task(world: World) -> None:
    alone = world.pool.acquire(ModelId("m", "1"))
    alone.hosts = ()
    before = asyncio.all_tasks()
    calls = [world.pipeline.predict(request("u1", feature), None) for feature in (1.0, 2.0)]
    await asyncio.sleep(0)
    assert all(call.done() for call in calls)
    assert asyncio.all_tasks() == before


async def test_a_model_that_takes_long_runs_beside_the_loop_in_small_batches(world: World) -> None:
    """As measured when it was loaded: two rows take as long as it is let."""
    handle = world.pool.acquire(ModelId("m", "1"))
    slow = ModelHandle(handle.artifact, Threaded(handle.servable), handle.merge, 1, Cost((1, 2), (0.05, 0.1)))
    world.pool.put(slow)
    responses = await asyncio.gather(*(world.pipeline.predict(request("u1", 0.1 * row), None) for row in range(5)))
    wanted = [expected("u1", 0.1 * row) for row in range(5)]
    assert [response.scores[0, 0] for response in responses] == pytest.approx(wanted)
    assert slow.servable.rows == [2, 2, 1]
    assert threading.main_thread() not in slow.servable.threads


class Threaded(Servable):
    """Tells where it ran."""

    def __init__(self, servable: Servable) -> None:
        self.signature = servable.signature
        self._servable = servable
        self.rows: list[int] = []
        self.threads: set[threading.Thread] = set()

    def predict(self, batch: Batch) -> Outputs:
        self.rows.append(batch.rows)
        self.threads.add(threading.current_thread())
        return self._servable.predict(batch)


async def test_the_local_half_runs_once_while_the_host_answers(tmp_path: Path) -> None:
    source = SlowSource()
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits())
    handle = world.pool.half(ModelId("m", "1"))
    handle.servable = half = Threaded(handle.servable)
    reply = world.pipeline.predict(request("u2", 3.0), None)
    await source.asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert half.rows == [1]
    source.go_on.set()
    assert (await reply).scores.tolist() == [[pytest.approx(expected("u2", 3.0), abs=1e-12)]]
    assert half.rows == [1]


async def test_the_local_half_does_not_run_for_calls_that_were_refused_at_once(world: World) -> None:
    handle = world.pool.half(ModelId("m", "1"))
    handle.servable = half = Threaded(handle.servable)
    with pytest.raises(UnknownUserError):
        await world.pipeline.predict(request("nobody"), None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert half.rows == []


async def test_hosts_are_left_alone_when_the_request_ends(tmp_path: Path) -> None:
    source = SlowSource()
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits(peer_timeout_s=3_600))
    call = asyncio.ensure_future(world.pipeline.predict(request(), None))
    await source.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(source_cancelled(source), 5)
    assert ended(world) == {("", "s", "m:1", "CANCELLED"): 1}


async def source_cancelled(source: SlowSource) -> None:
    while not source.cancelled:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"service": "nobody"}, UnknownNameError, "nobody"),
        ({"service": "", "model": "m", "version": "9"}, UnknownNameError, "m/9"),
        ({"numbers": {}}, FeatureError, "'a'"),
        ({"numbers": {"a": 1.0, "b": 2.0}}, FeatureError, "'b'"),
        ({"user_ids": ("",)}, InvalidRequestError, "user_id"),
        ({"user_ids": (), "columnar": True, "numbers": {}}, InvalidRequestError, "no rows"),
        ({"user_ids": ("u1",) * 51, "columnar": True, "numbers": {"a": [1.0] * 51}}, LimitError, "50"),
        ({"matrix": np.ones((1, 1)), "signature_hash": b"x"}, FeatureError, "signature_hash"),
    ],
)
async def test_wrong_requests(world: World, wrong: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await world.pipeline.predict(request(**wrong), None)


@pytest.mark.parametrize("where", ["before", "after"])
async def test_an_app_that_fails_is_named(world: World, where: str) -> None:
    world.bind(("1", BUCKETS), app=Broken(where))
    with pytest.raises(AppError, match="'broken' failed in p"):
        await world.pipeline.predict(request(), None)


async def test_the_model_stays_while_a_request_uses_it(tmp_path: Path) -> None:
    source = SlowSource()
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits(peer_timeout_s=30))
    call = asyncio.ensure_future(world.pipeline.predict(request(), None))
    await source.asked.wait()
    unload = asyncio.create_task(world.pool.remove(ModelId("m", "1")))
    await asyncio.sleep(0)
    assert not unload.done()
    source.go_on.set()
    assert (await call).complete
    await asyncio.wait_for(unload, 5)
    with pytest.raises(UnknownNameError):
        await world.pipeline.predict(request(), None)


async def test_the_scorecard_sees_the_merged_probability(world: World) -> None:
    world.bind(("1", BUCKETS), app=SCORECARD)
    response = await world.pipeline.predict(request("u4", 0.0), None)
    probability = expected("u4", 0.0)
    points: Scores = np.array([[600 + 20 / math.log(2) * math.log((1 - probability) / probability)]])
    assert response.scores == pytest.approx(points, abs=0.005)


async def test_rows_of_several_variants_are_attributed_each_to_its_own(world: World) -> None:
    world.bind(("1", 5_000), ("2", 5_000))
    users = [*USERS, "nobody"]
    response = await world.pipeline.predict(batch(users, [1.0] * 4, attributed=True), None)
    assert len(response.attributions) == 4
    assert response.attributions[3] == b""
    await world.effects.feedback([(one, 1.0) for one in response.attributions[:3]])
    found = {one.subject.variant: one.positives for one in await world.effects.figures("s")}
    assert {variant: count for variant, count in found.items() if count} == Counter(response.variants[:3])
    assert not (await world.pipeline.predict(batch(users, [1.0] * 4), None)).attributions


async def test_a_repetition_has_the_attribution_of_the_first_and_counts_once(world: World) -> None:
    class Attributing(JsonCodec):
        def encode(self, response: Response, level: CacheLevel) -> bytes:
            return response.attributions[0]

    codec = Attributing({b"1": request(case_id="c", attributed=True), b"2": request(case_id="c", attributed=True)})
    first = world.pipeline.answer(codec, b"1", None)
    assert not isinstance(first, bytes)
    made = await first
    assert world.pipeline.answer(codec, b"1", None) == made
    assert world.pipeline.answer(codec, b"2", None) == made
    assert [one.answers for one in await world.effects.figures("s")] == [1]


async def test_a_configured_score_is_flagged_and_never_repeated_from_memory(tmp_path: Path) -> None:
    """In batches row by row."""
    fallback = FallbackSettings(policy=FallbackPolicy.DEFAULT, score=0.125)
    source = MemoryFeatureSource(USERS)
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits(), fallback)
    single = await world.pipeline.predict(request("nobody"), None)
    assert (single.scores.tolist(), single.complete) == ([[0.125]], False)
    assert single.parties[0].statuses == (PartyStatus.NOT_FOUND,)
    both = await world.pipeline.predict(batch(["nobody", "u1"], [1.0, 1.0]), None)
    assert both.scores[:, 0].tolist() == [0.125, pytest.approx(expected("u1", 1.0))]
    assert (both.complete, both.parties[0].statuses) == (False, (PartyStatus.NOT_FOUND, PartyStatus.OK))
    codec = JsonCodec({b"1": request("nobody", case_id="c")})
    for _ in range(2):
        assert (await answered(world, codec, b"1")).startswith("NONE")


class Remembering(LocalHosts):
    """Has at hand what it was told before, of strangers too, as memory has."""

    def __init__(self, sides: Mapping[str, HostSide]) -> None:
        super().__init__(sides)
        self.known: dict[str, Piece] = {}

    def look(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> Lookup:
        lookup = super().look(party, handle, user_ids)
        lookup.pieces = [self.known.get(user) for user in user_ids]
        return lookup

    async def ask(self, lookup: Lookup, deadline: float) -> None:
        missing = lookup.take(lookup.missing())
        await super().ask(missing, deadline)
        for row, piece in zip(lookup.missing(), missing.pieces, strict=True):
            lookup.pieces[row] = self.known[lookup.user_ids[row]] = piece


@pytest.mark.parametrize("seen", [("u1", "u2", "nobody"), ("nobody",), ("u1", "u2"), ()])
async def test_a_stranger_is_refused_among_known_users_wherever_they_are_known_from(
    tmp_path: Path, seen: tuple[str, ...]
) -> None:
    world = await asyncio.to_thread(make_world, tmp_path, MemoryFeatureSource(USERS), Limits())
    world.pipeline._hosts = Remembering(world.pipeline._hosts._sides)
    for user in seen:
        await asyncio.gather(world.pipeline.predict(request(user), None), return_exceptions=True)
    calls = [world.pipeline.predict(request(user), None) for user in ("u1", "nobody", "u2")]
    first, stranger, second = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(stranger, UnknownUserError)
    assert [first.scores[0, 0], second.scores[0, 0]] == pytest.approx([expected("u1", 1.0), expected("u2", 1.0)])
    assert first.complete
    assert second.complete


@pytest.mark.parametrize("repeat", [b"1", b"2"], ids=["same bytes", "same case"])
async def test_a_repeat_over_a_limit_is_refused_and_is_no_hit_nor_activity(tmp_path: Path, repeat: bytes) -> None:
    limits = Limits(callers={"greedy": RateLimit(per_s=1, burst=1)})
    world = await asyncio.to_thread(make_world, tmp_path, MemoryFeatureSource(USERS), limits)
    codec = JsonCodec({b"1": request(case_id="c"), b"2": request(case_id="c")})
    counts = world.pipeline._results.counts
    await answered(world, codec, b"1")
    assert isinstance(world.pipeline.answer(codec, repeat, None, "greedy"), bytes)
    before = (counts.hits, counts.misses, world.pipeline.served.repeated(), list(world.seen))
    assert before[0] == 1
    for _ in range(3):
        with pytest.raises(LimitError):
            world.pipeline.answer(codec, repeat, None, "greedy")
    assert (counts.hits, counts.misses, world.pipeline.served.repeated(), world.seen) == before
    assert ended(world)["test", "s", "", "RESOURCE_EXHAUSTED"] == 3


def ended(world: World) -> dict[tuple[str, str, str, str], int]:
    counted = world.pipeline.served.ended().items()
    return {(*subject, code.name): calls for (subject, code), calls in counted}


async def test_calls_are_counted_by_what_answered_them_and_how_they_ended(tmp_path: Path) -> None:
    limits = Limits(max_batch_rows=50, callers={"greedy": RateLimit(per_s=1, burst=1)})
    world = await asyncio.to_thread(make_world, tmp_path, MemoryFeatureSource(USERS), limits)
    world.bind(("1", 5_000), ("2", 5_000))
    variants = {user: "m:1" if bucket(b"salt", user) < 5_000 else "m:2" for user in (*USERS, "nobody")}
    assert set(variants.values()) == {"m:1", "m:2"}, "choose other users"
    codec = JsonCodec({b"1": request("u1", case_id="c"), b"2": request("u2"), b"3": request("u1", service="invented")})
    other = JsonCodec(codec._requests)
    other.protocol = "other"
    for raw in (b"1", b"1", b"2"):
        await answered(world, codec, raw)
    together = [world.pipeline.answer(one, b"2", None) for one in (codec, other, other)]
    await asyncio.gather(*map(asyncio.ensure_future, together))
    await world.pipeline.predict(batch(["u1", "u2", "u4"], [1.0, 1.0, 1.0]), None, "rows")
    for wrong in (request("nobody"), request("u1", service="", model="m", version="9"), request("u1", numbers={})):
        with pytest.raises((UnknownUserError, UnknownNameError, FeatureError)):
            await world.pipeline.predict(wrong, None, "rows")
    with pytest.raises(DeadlineError):
        world.pipeline.answer(codec, b"2", 0.0)
    with pytest.raises(UnknownNameError):
        world.pipeline.answer(codec, b"3", None)
    with pytest.raises(KeyError):
        world.pipeline.answer(codec, b"garbage", None)
    await asyncio.ensure_future(world.pipeline.answer(codec, b"2", None, "greedy"))
    with pytest.raises(LimitError):
        world.pipeline.answer(codec, b"2", None, "greedy")
    wanted = Counter(("test", "s", variants[user], "OK") for user in ("u1", "u2", "u2", "u2"))
    wanted["other", "s", variants["u2"], "OK"] += 2
    wanted.update({("rows", "s", variants[user], "OK") for user in USERS})
    wanted["rows", "s", variants["nobody"], "FAILED_PRECONDITION"] += 1
    wanted["rows", "", "", "NOT_FOUND"] += 1
    wanted["test", "", "", "NOT_FOUND"] += 1
    wanted["test", "", "", "INTERNAL"] += 1
    wanted["rows", "s", variants["u1"], "INVALID_ARGUMENT"] += 1
    wanted["test", "s", "", "DEADLINE_EXCEEDED"] += 1
    wanted["test", "s", "", "RESOURCE_EXHAUSTED"] += 1
    assert ended(world) == wanted
    assert world.pipeline.served.repeated() == {("test", "s", variants["u1"]): 1}
    assert (world.pipeline.served.single, world.pipeline.served.rows.sum) == (9, 3)
    stages = world.pipeline.stages
    for stage in (stages.app, stages.local, stages.merge, stages.reply):
        assert stage.sum > 0


async def test_a_batch_over_the_limit_of_a_model_is_counted_once(tmp_path: Path) -> None:
    limits = Limits(models={"m": RateLimit(per_s=1, burst=1)})
    world = await asyncio.to_thread(make_world, tmp_path, MemoryFeatureSource(USERS), limits)
    await world.pipeline.predict(batch(["u1"] * 3, [1.0] * 3), None)
    with pytest.raises(LimitError):
        await world.pipeline.predict(batch(["u1"] * 3, [1.0] * 3), None)
    assert ended(world) == {("", "s", "m:1", "OK"): 1, ("", "s", "", "RESOURCE_EXHAUSTED"): 1}


async def test_nothing_is_made_for_a_result_cache_that_is_switched_off(world: World) -> None:
    class Counting(JsonCodec):
        levels: ClassVar[list[CacheLevel]] = []

        def encode(self, response: Response, level: CacheLevel) -> bytes:
            self.levels.append(level)
            return super().encode(response, level)

    codec = Counting({b"1": request(case_id="c")})
    world.pipeline._results = NoResults()
    for _ in range(2):
        assert (await answered(world, codec, b"1")).startswith("NONE ")
    assert codec.levels == [CacheLevel.NONE] * 2


async def test_each_round_counts_its_own_preparation(tmp_path: Path) -> None:
    source, limits, slow = MemoryFeatureSource(USERS), Limits(peer_timeout_s=60), Slow("")

    def now() -> float:
        return time.monotonic() + slow.clock.now

    world = await asyncio.to_thread(make_world, tmp_path, source, limits, None, now)
    world.bind(("1", BUCKETS), app=slow)
    world.pool.acquire(ModelId("m", "1")).together = 1
    await asyncio.gather(*(asyncio.ensure_future(world.pipeline.predict(request(user), None)) for user in USERS))
    stages = world.pipeline.stages
    for stage in (stages.prepare, stages.app):
        assert dict(stage.cumulative())["+Inf"] == len(USERS)
    assert stages.app.sum == pytest.approx(len(USERS), abs=0.9)
    assert stages.prepare.sum < 0.9
