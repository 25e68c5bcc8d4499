"""What a sampled call leaves in the log, and what it must not."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.app import Request
from loaders.signature import FeatureError
from serving.cache.result import ResultCache
from serving.errors import UnknownNameError, UnknownUserError
from serving.features.memory import MemoryFeatureSource
from serving.limits import Limiter
from serving.pipeline import Answers
from serving.request_log import LoggedPipeline, RequestLog
from serving.settings import Limits
from serving.telemetry.logs import JsonFormatter
from tests.clock import Clock
from tests.unit.serving.test_pipeline import USERS, JsonCodec, SlowSource, World, batch, make_world, request

SECRET = b"s" * 32
Make = Callable[..., LoggedPipeline]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, MemoryFeatureSource(USERS), Limits())


def packed(values: list[float]) -> Request:
    texts = {"note": ["new"]}
    matrix = np.array([values])
    return Request("s", "", "", "", ("u1",), texts=texts, matrix=matrix, signature_hash=b"of others", columnar=True)


def logged(
    world: World, share: float = 1.0, chance: Callable[[], float] = lambda: 0.5, features: bool = False
) -> LoggedPipeline:
    log = RequestLog(share, SECRET, Clock(), chance, features)
    answers, limiter = Answers(ResultCache(100, 120.0), world.effects), Limiter(Limits(peer_timeout_s=0.05))
    return LoggedPipeline(log, world.table, world.pool, world.pipeline._hosts, answers, limiter)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [one.fields for one in caplog.records if one.name == "serving.request_log"]  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serving.request_log")


async def test_a_call_and_its_repeat_are_told_without_ids_and_features(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, codec = logged(world), JsonCodec({b"1": request("u1", 0.125, case_id="case-7")})
    await pipeline.answer(codec, b"1", None, "shop-app")  # type: ignore[misc]
    assert isinstance(pipeline.answer(codec, b"1", None, "shop-app"), bytes)
    first, repeat = lines(caplog)
    case = first.pop("case")
    assert first == {
        "method": "test/Predict",
        "service": "s",
        "code": "OK",
        "rows": 1,
        "seconds": 0.0,
        "cache": "none",
        "caller": "shop-app",
        "model": "m",
        "version": "1",
        "variants": ["m:1"],
        "complete": True,
        "parties": {"shop": {"statuses": {"ok": 1}, "levels": {"none": 1}}},
    }
    assert (repeat["case"], repeat["cache"], repeat["service"], repeat["code"]) == (case, "l1", "s", "OK")
    assert "variants" not in repeat
    said = caplog.text + repr(lines(caplog))
    assert not [secret for secret in ("u1", "case-7", "0.125") if secret in said]
    assert case == RequestLog(0.1, SECRET).case("case-7") != RequestLog(0.1, b"t" * 32).case("case-7")
    assert "request to s by m:1: OK after 0.0 ms, rows 1" in caplog.text


async def test_calls_that_fail_are_told_with_their_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = await asyncio.to_thread(make_world, tmp_path, SlowSource(), Limits())
    pipeline = logged(world)
    codec = JsonCodec({b"1": request(), b"2": request(service="invented")})
    with pytest.raises(Exception, match="timeout"):
        await pipeline.answer(codec, b"1", None)  # type: ignore[misc]
    with pytest.raises(UnknownNameError):
        pipeline.answer(codec, b"2", None)
    leaving = asyncio.ensure_future(pipeline.answer(codec, b"1", None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert [(one["service"], one["code"], one["cache"]) for one in lines(caplog)] == [
        ("s", "UNAVAILABLE", "none"),
        ("", "NOT_FOUND", "none"),
        ("s", "CANCELLED", "none"),
    ]
    assert "invented" not in repr(lines(caplog))


async def test_a_batch_tells_how_many_rows_each_party_answered(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await logged(world).predict(batch(["u1", "nobody", "u4"], [1.0, 1.0, 1.0]), None)
    with pytest.raises(UnknownUserError):
        await logged(world).predict(request("nobody"), None)
    told, refused = lines(caplog)
    assert (told["rows"], told["complete"]) == (3, False)
    assert told["parties"]["shop"]["statuses"] == {"ok": 2, "not_found": 1}
    assert refused["code"] == "FAILED_PRECONDITION"


async def test_features_are_told_to_who_asks_for_them(world: World, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = logged(world, features=True)
    await pipeline.predict(request("u1", 0.125), None)
    await pipeline.predict(batch(["u1"], [0.25]), None)
    await pipeline.predict(batch(["u1", "u2"], [0.5, 0.75]), None)
    with pytest.raises(FeatureError):
        await pipeline.predict(packed([0.375, math.nan, 1.0]), None)
    one, column, many, vector = lines(caplog)
    assert [told.get("features") for told in (one, column, many)] == [{"a": 0.125}, {"a": 0.25}, None]
    assert str(vector["features"]) == "{'packed': [0.375, nan, 1.0], 'note': 'new'}"
    assert "u1" not in repr(lines(caplog))
    line = logging.makeLogRecord({"msg": "request", "fields": {"features": vector["features"]}})
    assert '"features":{"packed":[0.375,null,1.0],"note":"new"}' in JsonFormatter().format(line)


async def test_a_share_of_the_calls_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    chances = iter([0.0, 0.24, 0.25, 0.99])
    pipeline = logged(world, 0.25, lambda: next(chances))
    for _ in range(4):
        await pipeline.predict(request(), None)
    assert len(lines(caplog)) == 2
