"""Versions that run beside those that answer: real pool and halves, hosts in this process."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from apps.app import App, Request, Result, features_of
from loaders.signature import Batch, Signature
from serving import shadows
from serving.features.memory import MemoryFeatureSource
from serving.figures.counts import VariantFigures
from serving.pool import ModelId
from serving.routing import BUCKETS, VariantRoute, bucket
from serving.settings import Limits, RateLimit
from tests.unit.serving.test_pipeline import (
    USERS,
    JsonCodec,
    World,
    answered,
    batch,
    ended,
    expected,
    make_world,
    request,
)


class Slow(MemoryFeatureSource):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__(USERS)
        self.go = asyncio.Event()
        self.go.set()

    async def lookup(self, user_ids, signature):
        await self.go.wait()
        return await super().lookup(user_ids, signature)

    def at_hand(self, signature):
        return None


@pytest.fixture
def source() -> Slow:
    return Slow()


@pytest.fixture
async def world(tmp_path: Path, source: Slow) -> World:
    limits = Limits(max_batch_rows=50, models={"m": RateLimit(per_s=0.001, burst=100)})
    made = await asyncio.to_thread(make_world, tmp_path, source, limits)
    shadow(made)
    return made


def shadow(world: World, share: int = BUCKETS, version: str = "2") -> None:
    """Version 1 answers; this one runs beside it."""
    routes = world.table.current
    variant = VariantRoute(f"m:{version}", ModelId("m", version), ((0, share),))
    world.table.current = replace(routes, services={"s": replace(routes.services["s"], shadows=(variant,))})


async def figures(world: World) -> list[VariantFigures]:
    """Once all shadows have run."""
    while world.pipeline.shadows.running:
        await asyncio.sleep(0)
    return await world.effects.figures("s")


async def test_its_scores_stand_beside_the_answers(world: World) -> None:
    users, features = ["u1", "u2", "u4"], [1.0, -0.5, 2.0]
    response = await world.pipeline.predict(batch(users, features), None)
    assert response.variants == ("m:1",)
    answer, beside = await figures(world)
    assert (answer.subject.shadow, beside.subject.shadow) == (False, True)
    assert (answer.answers, beside.answers, beside.subject.variant) == (3, 3, "m:2")
    differences = [abs(expected(u, f, "2") - expected(u, f)) for u, f in zip(users, features, strict=True)]
    assert beside.moved == pytest.approx(sum(differences) / 3, abs=1e-6)


async def test_it_runs_for_its_share_of_the_users(world: World) -> None:
    share = sorted(bucket(b"salt", user) for user in USERS)[1]
    shadow(world, share)
    await world.pipeline.predict(batch(list(USERS), [1.0] * 3), None)
    assert [one.answers for one in await figures(world)] == [3, 1]


async def test_an_answer_does_not_wait_for_it(world: World, source: Slow) -> None:
    await world.pipeline.predict(request("u1"), None)
    source.go.clear()
    assert world.pipeline.shadows.running == 1
    source.go.set()
    assert [one.answers for one in await figures(world)] == [1, 1]


async def test_one_that_fails_fails_no_answer(world: World, caplog: pytest.LogCaptureFixture) -> None:
    shadow(world, version="9")
    response = await world.pipeline.predict(request("u1"), None)
    assert response.scores[0, 0] == pytest.approx(expected("u1", 1.0))
    assert [one.subject.variant for one in await figures(world)] == ["m:1"]
    await world.pipeline.predict(request("u2"), None)
    await figures(world)
    assert world.pipeline.shadows.left_out == 2
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings == ["shadow m:9 of service s is left out: model m/9 is not loaded at this party"]


class Fickle(App):
    """Fails the second time."""

    name = "fickle"
    calls = 0

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        type(self).calls += 1
        if self.calls == 2:
            raise ZeroDivisionError
        return features_of(request, signature)

    def postprocess(self, request: Request, result: Result) -> Result:
        return result


async def test_one_whose_app_fails_is_no_request_that_failed(world: World) -> None:
    world.bind(("1", BUCKETS), app=Fickle(""))
    shadow(world)
    await world.pipeline.predict(request("u1"), None)
    await figures(world)
    assert (Fickle.calls, world.pipeline.shadows.left_out) == (2, 1)
    assert ended(world) == {("", "s", "m:1", "OK"): 1}


async def test_no_limit_of_the_answers_counts_it(world: World) -> None:
    for _ in range(2):
        await world.pipeline.predict(batch(["u1"] * 50, [1.0] * 50), None)
    assert [one.answers for one in await figures(world)] == [100, 100]


async def test_a_repeated_case_runs_none(world: World) -> None:
    codec = JsonCodec({b"1": request(case_id="c")})
    for _ in range(3):
        await answered(world, codec, b"1")
    assert [one.answers for one in await figures(world)] == [1, 1]


async def test_a_caller_who_names_the_version_meets_none(world: World) -> None:
    await world.pipeline.predict(request("u1", service="", model="m", version="1"), None)
    assert not world.pipeline.shadows.running


async def test_while_many_run_more_are_left_out(world: World, source: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_ROWS", 1)
    await asyncio.gather(*(world.pipeline.predict(request(user), None) for user in USERS))
    assert world.pipeline.shadows.left_out == 2
    assert [one.answers for one in await figures(world)] == [3, 1]


async def test_a_batch_of_any_size_runs_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_ROWS", 2)
    for _ in range(2):
        await world.pipeline.predict(batch(list(USERS), [1.0] * 3), None)
        await figures(world)
    assert [one.answers for one in await figures(world)] == [6, 6]
    assert world.pipeline.shadows.left_out == 0


async def test_those_that_run_end_with_the_node(world: World, source: Slow) -> None:
    await world.pipeline.predict(request("u1"), None)
    source.go.clear()
    await asyncio.sleep(0)
    await world.pipeline.shadows.stop()
    assert not world.pipeline.shadows.running
