"""What every feature source does, over the same users."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
from serving.features.http import MAX_CONNECTIONS, HttpFeatureSource
from serving.features.memory import MemoryFeatureSource
from serving.features.redis import RedisFeatureSource
from serving.features.source import FeatureSource, FeatureSourceError
from serving.features.sql import SqlFeatureSource
from serving.http_port import HttpServer

NAN = math.nan
AT_ONCE = 120
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
    """A feature service as a host might have it. While `go_on` is not set it stalls."""

    def __init__(self):
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.server = HttpServer(Starlette(routes=[Route("/features", self.answer, methods=["POST"])]))
        self.asked = []

    async def answer(self, request):
        if request.headers.get("authorization") != "Bearer sesame":
            return JSONResponse({}, 401)
        asked = await request.json()
        await self.go_on.wait()
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


@dataclass(frozen=True)
class Rig:
    """A source that is open, and the back end behind it. `stall` has that answer nobody until `go_on`."""

    source: FeatureSource
    stall: Callable[[], object]
    go_on: Callable[[], object]


@contextlib.asynccontextmanager
async def redis_rig(folder, timeout_s):
    server = EmbeddedRedis(folder, 64 << 20)
    await server.start()
    await fill(server.url)
    source = RedisFeatureSource(server.url, "features:", 30.0, timeout_s)
    signal_to = server._process.send_signal
    yield Rig(source, partial(signal_to, signal.SIGSTOP), partial(signal_to, signal.SIGCONT))
    await server.stop()


@contextlib.asynccontextmanager
async def http_rig(folder, timeout_s):
    service = Service()
    port = service.server.add_port("127.0.0.1:0")
    await service.server.start()
    source = HttpFeatureSource(f"http://127.0.0.1:{port}/features", "sesame", 30.0, timeout_s)
    yield Rig(source, service.go_on.clear, service.go_on.set)
    await service.server.stop(0)


@contextlib.asynccontextmanager
async def sql_rig(folder, timeout_s):
    await database(folder / "users.db")
    source = SqlFeatureSource(f"sqlite+aiosqlite:///{folder}/users.db", "users", "id", 30.0, timeout_s)
    other = sqlite3.connect(folder / "users.db", isolation_level=None)
    yield Rig(source, partial(other.execute, "begin exclusive"), partial(other.execute, "rollback"))
    other.close()


@contextlib.asynccontextmanager
async def open_rig(kind, folder, timeout_s):
    async with {"redis": redis_rig, "http": http_rig, "sql": sql_rig}[kind](folder, timeout_s) as rig:
        await rig.source.open()
        yield rig
        await rig.source.close()


@pytest.fixture(params=["memory", "csv", "parquet", "redis", "http", "sql"])
async def source(request, tmp_path):
    kind = request.param
    if kind in {"redis", "http", "sql"}:
        async with open_rig(kind, tmp_path, 30) as rig:
            yield rig.source
        return
    made = {"memory": memory, "csv": csv, "parquet": parquet}[kind](tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture(params=["redis", "http", "sql"])
async def rig(request, tmp_path):
    """A source that talks to a back end."""
    async with open_rig(request.param, tmp_path, 0.2) as made:
        yield made
        with contextlib.suppress(sqlite3.OperationalError):  # it goes on already
            made.go_on()


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


async def test_what_is_at_hand_is_what_a_look_up_gives(source):
    looked_up = await source.lookup(["7", "nobody"], BOTH)
    at_hand = source.at_hand(BOTH)
    assert (at_hand is not None) is isinstance(source, MemoryFeatureSource | FileFeatureSource)
    if at_hand is not None:
        rows = at_hand(["7", "nobody"])
        assert rows.batch.numbers.tobytes() == looked_up.batch.numbers.tobytes()
        assert rows.batch.texts.tolist() == looked_up.batch.texts.tolist()
        assert (rows.found.tolist(), rows.max_age_s) == ([True, False], looked_up.max_age_s)


async def test_many_at_once_are_all_answered(source):
    looked = await asyncio.gather(*(source.lookup([user], BOTH) for user in ("7", "007") * (AT_ONCE // 2)))
    assert [rows.batch.numbers[0, 1] for rows in looked] == [23.0, 41.0] * (AT_ONCE // 2)


async def test_a_stall_costs_the_timeout_and_no_more(rig):
    rig.stall()
    async with asyncio.timeout(3):
        with pytest.raises(FeatureSourceError, match="does not answer"):
            await rig.source.lookup(["7"], BOTH)
    rig.go_on()
    assert (await rig.source.lookup(["7"], BOTH)).batch.numbers.tolist() == [[-2.25, 23.0]]


async def test_a_look_up_is_cancelled_and_its_answer_reaches_nobody_else(rig):
    rig.stall()
    looking = [asyncio.create_task(rig.source.lookup([user], BOTH)) for user in ("7", "007")]
    await asyncio.wait(looking, timeout=0.05)
    for task in looking:
        task.cancel()
    async with asyncio.timeout(3):
        await asyncio.wait(looking)
    assert all(task.cancelled() for task in looking)
    rig.go_on()
    for _ in range(3):
        assert (await rig.source.lookup(["ü"], BOTH)).batch.numbers[0, 1] == 5.0


@dataclass(frozen=True)
class Held:
    """Files and sockets, threads and tasks of this process. `of_service`: tasks of a service that is here too, which
    bears with callers that have left; the attempts to connect are not counted beside the look-ups that make them."""

    files: int
    threads: int
    tasks: int
    of_service: int

    @classmethod
    def now(cls):
        names = [getattr(one.get_coro(), "__qualname__", "") for one in asyncio.all_tasks()]
        service = sum(name.endswith((".run_asgi", "._accept_connection2")) for name in names)
        connecting = sum(name.startswith("TaskHandle.") for name in names)
        files = len([*Path("/proc/self/fd").iterdir()])
        return cls(files, threading.active_count(), len(names) - service - connecting, service)


async def test_look_ups_of_a_stall_do_not_pile_up(rig):
    assert (await rig.source.lookup(["7"], BOTH)).found.all()
    ends = 2 if isinstance(rig.source, HttpFeatureSource) else 1  # the service is here, too
    before, most_files = Held.now(), 0
    rig.stall()
    for _ in range(2):
        looking = {asyncio.create_task(rig.source.lookup(["7"], BOTH)) for _ in range(AT_ONCE)}
        waiting = looking
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=0.02)
            most_files = max(most_files, Held.now().files)
        assert all(isinstance(task.exception(), FeatureSourceError) for task in looking)
        async with asyncio.timeout(1):  # they are cancelled, and end in their turns of the loop
            while Held.now().tasks > before.tasks + MAX_CONNECTIONS:
                await asyncio.sleep(0.01)
        assert Held.now().threads <= before.threads + 20
    assert most_files <= before.files + ends * MAX_CONNECTIONS + 10
    rig.go_on()
    async with asyncio.timeout(5):
        while Held.now().of_service > before.of_service:
            await asyncio.sleep(0.01)
    assert (await rig.source.lookup(["7"], BOTH)).found.all()
    async with asyncio.timeout(5):
        while Held.now().tasks > before.tasks:
            await asyncio.sleep(0.01)
