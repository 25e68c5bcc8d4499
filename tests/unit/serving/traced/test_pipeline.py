"""Steps of calls that run together, or as parts of one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.app import Request, Response
from serving.cache.result import ResultCache
from serving.features.memory import MemoryFeatureSource
from serving.limits import Limiter
from serving.pipeline import Answers
from serving.request_log import RequestLog
from serving.routing import BUCKETS
from serving.settings import Limits, TraceSettings
from serving.telemetry.spans import Kind, Span, within
from serving.telemetry.tracer import Sampling, Tracer
from serving.traced.peers import TracedHosts
from serving.traced.pipeline import LoggedTracedPipeline, TracedPipeline
from serving.transport import Promise
from tests.unit.serving.test_pipeline import USERS, Broken, JsonCodec, World, batch, expected, make_world, request

WHOLE = ["app preprocess", "cache l2", "peer shop", "local", "merge", "app postprocess"]
SETTINGS, PATIENT = TraceSettings(share=1), Limits(peer_timeout_s=30.0)


@dataclass
class Traced:
    world: World
    tracer: Tracer
    pipeline: TracedPipeline

    def call(self, request: Request) -> tuple[Span, Promise[Response]]:
        span = self.tracer.begin("call", Kind.SERVER, None)
        with within(span):
            return span, self.pipeline.predict(request, None)

    def steps(self, span: Span) -> list[str]:
        """Of everything that has ended."""
        return [one.name for one in self.kept() if one.parent == span.context]

    def kept(self) -> list[Span]:
        self._kept = [*getattr(self, "_kept", []), *self.tracer.take(1_000)]
        return self._kept


@pytest.fixture
def made(tmp_path: Path) -> Traced:
    world = make_world(tmp_path, MemoryFeatureSource(USERS), PATIENT)
    answers = Answers(ResultCache(100, 120.0), world.effects)
    hosts = TracedHosts(world.pipeline._hosts, shared=False)
    pipeline = TracedPipeline(world.table, world.pool, hosts, answers, Limiter(PATIENT))
    return Traced(world, Tracer(SETTINGS, Sampling(SETTINGS)), pipeline)


async def test_a_call_has_its_steps_and_the_same_score(made: Traced) -> None:
    span, reply = made.call(request("u2", 3.0))
    assert (await reply).scores.tolist() == [[pytest.approx(expected("u2", 3.0), abs=1e-12)]]
    assert made.steps(span) == WHOLE
    assert span.attributes == {
        "tessera.service": "s",
        "tessera.model": "m",
        "tessera.version": "1",
        "tessera.variant": "m:1",
    }


async def test_a_call_that_is_not_traced_leaves_nothing(made: Traced) -> None:
    await made.pipeline.predict(request(), None)
    assert made.kept() == []


@pytest.mark.parametrize("untraced", [0, 1, 2])
async def test_of_calls_that_run_together_the_first_traced_has_the_steps(made: Traced, untraced: int) -> None:
    others = [made.pipeline.predict(request("u1"), None) for _ in range(untraced)]
    (first, one), (second, two) = made.call(request("u2")), made.call(request("u4"))
    await asyncio.gather(*others, one, two)
    assert (made.steps(first), made.steps(second)) == (WHOLE, [])
    assert (first.links, second.links) == ([], [first.context])


async def test_the_steps_of_a_call_are_its_own_when_one_beside_it_is_wrong(made: Traced) -> None:
    (first, bad), (second, good) = made.call(request("u1", "wrong")), made.call(request("u2"))  # type: ignore[arg-type]
    results = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(results[0], Exception)
    assert isinstance(results[1], Response)
    assert [step for step in WHOLE if step not in made.steps(second)] == []
    assert "local" not in made.steps(first)


async def test_parts_of_one_call_are_steps_of_it(made: Traced) -> None:
    made.world.bind(("1", BUCKETS // 2), ("2", BUCKETS // 2))
    span, reply = made.call(batch([*"abcdefgh", "u1", "u2", "u4"], [1.0] * 11))
    await reply
    assert made.steps(span).count("peer shop") == 2
    assert span.links == []


async def test_a_repeat_says_that_it_is_one(made: Traced) -> None:
    codec = JsonCodec({b"1": request(case_id="c")})
    spans = [made.tracer.begin("call", Kind.SERVER, None) for _ in range(2)]
    for span in spans:
        with within(span):
            reply = made.pipeline.answer(codec, b"1", None)
        if not isinstance(reply, bytes):
            await reply
    assert [span.attributes.get("tessera.cache") for span in spans] == [None, "l1"]


async def test_a_step_that_fails_says_by_what(made: Traced) -> None:
    made.world.bind(("1", BUCKETS), app=Broken("before"))
    _, reply = made.call(request())
    with pytest.raises(Exception, match="broken"):
        await reply
    assert [(one.name, one.failure) for one in made.kept()] == [("app preprocess", "AppError")]


async def test_a_party_that_does_not_know_the_user_is_a_step_that_failed(made: Traced) -> None:
    span, reply = made.call(request("nobody"))
    with pytest.raises(Exception, match="does not know the user"):
        await reply
    [asked] = [one for one in made.kept() if one.name == "peer shop"]
    assert (asked.failure, asked.attributes) == ("not_found", {"tessera.party": "shop", "tessera.rows": 1})
    assert asked.parent == span.context


async def test_a_long_local_half_is_a_step_beside_the_hosts(made: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.pool.ModelHandle.is_long", lambda self, rows: True)
    span, reply = made.call(request())
    await reply
    assert sorted(made.steps(span)) == sorted(WHOLE)
    [local] = [one for one in made.kept() if one.name == "local"]
    assert local.attributes["tessera.thread"] is True


async def test_a_call_may_be_logged_and_traced(made: Traced, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "serving.request_log")
    answers = Answers(ResultCache(100, 120.0), made.world.effects)
    hosts = TracedHosts(made.world.pipeline._hosts, shared=False)
    log = RequestLog(1.0, b"s" * 32)
    made.pipeline = LoggedTracedPipeline(log, made.world.table, made.world.pool, hosts, answers, Limiter(PATIENT))
    span, reply = made.call(request())
    await reply
    assert made.steps(span) == WHOLE
    assert [one.name for one in caplog.records] == ["serving.request_log"]
