"""What every feature source does, over the same users."""

from __future__ import annotations

import contextlib
import math

import polars as pl
import pytest
from redis.asyncio import Redis
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from loaders.signature import Missing, Signature, TensorSpec
from serving.cache.embedded import EmbeddedRedis
from serving.features.file import FileFeatureSource
from serving.features.http import HttpFeatureSource
from serving.features.memory import MemoryFeatureSource
from serving.features.redis import RedisFeatureSource
from serving.features.source import FeatureSourceError
from serving.features.sql import SqlFeatureSource
from serving.http_port import HttpServer

NAN = math.nan
USERS = {
    "007": {"age": 41.0, "income": 1.5, "city": "Bonn"},
    "7": {"age": 23.0, "income": -2.25, "city": "Kiel"},
    "ü": {"age": 5.0, "income": NAN, "city": None},
}
FRAME = pl.DataFrame(
    {
        "id": list(USERS),
        "age": [41, 23, 5],
        "income": [1.5, -2.25, None],
        "city": ["Bonn", "Kiel", None],
    }
)


def numbers(*names):
    return tuple(TensorSpec(name=name, dtype="float64", shape=(-1,), missing=Missing.IMPUTE) for name in names)


BOTH = Signature((*numbers("income", "age"), TensorSpec(name="city", dtype="string", shape=(-1,))), ())


def memory(folder):
    return MemoryFeatureSource(USERS, 30.0)


def csv(folder):
    FRAME.write_csv(folder / "users.csv")
    return FileFeatureSource(folder / "users.csv", "id", 30.0)


def parquet(folder):
    FRAME.write_parquet(folder / "users.parquet")
    return FileFeatureSource(folder / "users.parquet", "id", 30.0)


async def database(path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with engine.begin() as connection:
        await connection.execute(sql("create table users (id text primary key, age int, income real, city text)"))
        for user, row in FRAME.rows_by_key("id", named=True, unique=True).items():
            values = {"id": user, **row}
            await connection.execute(sql("insert into users values (:id, :age, :income, :city)"), values)
    await engine.dispose()


class Service:
    """A feature service as a host might have it."""

    def __init__(self):
        self.server = HttpServer(Starlette(routes=[Route("/features", self.answer, methods=["POST"])]))
        self.asked = []

    async def answer(self, request):
        if request.headers.get("authorization") != "Bearer sesame":
            return JSONResponse({}, 401)
        asked = await request.json()
        self.asked.append(asked)
        names = [*asked["numbers"], *asked["texts"]]
        rows = {
            user: {name: USERS[user][name] for name in names if USERS[user][name] is not NAN}
            for user in asked["user_ids"]
            if user in USERS
        }
        return JSONResponse({"users": rows})


async def fill(url):
    async with Redis.from_url(url) as client:
        for user, row in USERS.items():
            known = {name: str(value) for name, value in row.items() if value not in {None, NAN}}
            await client.hset(f"features:{user}", mapping=known)


@pytest.fixture(params=["memory", "csv", "parquet", "redis", "http", "sql"])
async def source(request, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        kind = request.param
        if kind == "redis":
            server = EmbeddedRedis(tmp_path, 64 << 20)
            await server.start()
            stack.push_async_callback(server.stop)
            await fill(server.url)
            made = RedisFeatureSource(server.url, "features:", 30.0, timeout_s=5)
        elif kind == "http":
            service = Service()
            port = service.server.add_port("127.0.0.1:0")
            await service.server.start()
            stack.push_async_callback(service.server.stop, 0)
            made = HttpFeatureSource(f"http://127.0.0.1:{port}/features", "sesame", 30.0, timeout_s=5)
        elif kind == "sql":
            await database(tmp_path / "users.db")
            made = SqlFeatureSource(f"sqlite+aiosqlite:///{tmp_path}/users.db", "users", "id", 30.0, timeout_s=5)
        else:
            made = {"memory": memory, "csv": csv, "parquet": parquet}[kind](tmp_path)
        await made.open()
        stack.push_async_callback(made.close)
        yield made


async def test_rows_come_in_the_order_asked_and_in_signature_order(source):
    rows = await source.lookup(["7", "007", "7"], BOTH)
    assert rows.batch.numbers.tolist() == [[-2.25, 23.0], [1.5, 41.0], [-2.25, 23.0]]
    assert rows.batch.texts.tolist() == [["Kiel"], ["Bonn"], ["Kiel"]]
    assert rows.found.tolist() == [True, True, True]


async def test_an_unknown_user_is_not_found_and_never_zeros(source):
    rows = await source.lookup(["0007", "7", "", "07"], BOTH)
    assert rows.found.tolist() == [False, True, False, False]
    assert all(math.isnan(value) for value in rows.batch.numbers[0])
    assert rows.batch.texts[0].tolist() == [None]
    assert rows.batch.numbers[1].tolist() == [-2.25, 23.0]


async def test_a_missing_value_of_a_known_user_is_missing(source):
    rows = await source.lookup(["ü"], BOTH)
    assert rows.found.tolist() == [True]
    assert math.isnan(rows.batch.numbers[0, 0])
    assert rows.batch.numbers[0, 1] == 5.0
    assert rows.batch.texts.tolist() == [[None]]


async def test_nobody_asked(source):
    rows = await source.lookup([], BOTH)
    assert rows.batch.numbers.shape == (0, 2)
    assert rows.found.shape == (0,)


async def test_two_models_read_different_features(source):
    assert (await source.lookup(["7"], Signature(numbers("age"), ()))).batch.numbers.tolist() == [[23.0]]
    assert (await source.lookup(["7"], Signature(numbers("income"), ()))).batch.numbers.tolist() == [[-2.25]]


async def test_absent_features_are_named(source):
    if isinstance(source, RedisFeatureSource | HttpFeatureSource):
        source.check(BOTH)
        return  # they have no columns, so every feature of theirs may be missing
    lacking = Signature(numbers("age", "height", "weight"), ())
    with pytest.raises(FeatureSourceError, match="'height', 'weight'"):
        source.check(lacking)
    with pytest.raises(FeatureSourceError, match="'height', 'weight'"):
        await source.lookup(["7"], lacking)
    source.check(BOTH)


async def test_it_says_how_fresh_it_is(source):
    assert (await source.lookup(["7"], BOTH)).max_age_s == 30.0


async def test_rows_belong_to_the_caller(source):
    rows = await source.lookup(["7"], BOTH)
    rows.batch.numbers[:] = 0
    assert (await source.lookup(["7"], BOTH)).batch.numbers.tolist() == [[-2.25, 23.0]]
