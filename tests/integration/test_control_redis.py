"""The shared state on a server that loses what it knew, or turns out to be one to keep nothing in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from serving.control import FileControlStore, InDoubtError, State, WantedLimit
from serving.control_redis import ControlStoreError, RedisControlStore
from serving.errors import ConflictError, NotKeptError
from serving.replicas import Replicas
from serving.reports import ReplicaReport
from serving.wanted import Wanted
from tests.redis_server import DURABLE, LosesReplies, redis_server, url_of

SOME = State(default_service="some")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis.Redis]:
    """A client of a server that keeps everything."""
    with redis_server(tmp_path, **DURABLE) as url, redis.Redis.from_url(url) as client:
        yield client


def store_on(folder: Path, name: str = "one") -> RedisControlStore:
    return RedisControlStore(url_of(folder), "bank", FileControlStore(folder / name))


def at_revision(store: RedisControlStore, revision: int) -> None:
    while store.read().revision < revision:
        store.compare_and_set(store.read().revision, SOME)


def test_flow_rules_of_the_version_before_are_limits(tmp_path: Path, server: redis.Redis) -> None:
    before = {"schema": "1.0", "revision": 4, "flow_rules": {"I_inference": 5.0}, "quota": 1}
    server.hset("tessera:control:bank", mapping={"revision": 4, "document": msgspec.json.encode(before)})
    store = store_on(tmp_path)
    other = store_on(tmp_path, "other")
    limits = {"resource": {"I_inference": WantedLimit(per_s=5.0)}}
    assert store.read() == State(revision=4, limits=limits)
    store.compare_and_set(4, msgspec.structs.replace(store.read(), limits={"resource": {}}))
    document = msgspec.json.decode(server.hget("tessera:control:bank", "document") or b"")
    assert (document["limits"], document["quota"], "flow_rules" in document) == ({"resource": {}}, 1, False)
    other.refresh()
    assert other.read() == State(revision=5, limits={"resource": {}})
    for each in (store, other):
        each.close()


async def test_a_change_on_a_server_that_has_lost_changes_is_refused(tmp_path: Path, server: redis.Redis) -> None:
    store = await asyncio.to_thread(store_on, tmp_path)
    await asyncio.to_thread(at_revision, store, 3)
    wanted = await asyncio.to_thread(Wanted, store)
    server.flushall()
    with pytest.raises(NotKeptError, match=r"the server is at revision 0, this node has seen 3: it lost changes"):
        await asyncio.wait_for(wanted.change(lambda state: msgspec.structs.replace(state, default_service="x")), 5)
    assert wanted.state == msgspec.structs.replace(SOME, revision=3)
    await asyncio.to_thread(store.close)


async def test_a_replica_says_that_the_server_has_lost_changes_and_what_to_do(
    tmp_path: Path, server: redis.Redis
) -> None:
    store = await asyncio.to_thread(store_on, tmp_path)
    await asyncio.to_thread(at_revision, store, 3)
    replicas = Replicas("bank", "here", store)
    await replicas.look()
    assert not list(replicas.problems())
    kept = server.hgetall("tessera:control:bank")
    server.hset("tessera:control:bank", "revision", 2)
    await replicas.look()
    [problem] = replicas.problems()
    assert "the server is at revision 2, this node has seen 3" in problem
    assert "remove state.json from its state folder to accept the loss" in problem
    assert "this replica serves the state of revision 3" in problem
    server.hset("tessera:control:bank", mapping=kept)
    await replicas.look()
    assert not list(replicas.problems())
    await replicas.stop()


def test_an_empty_server_is_filled_by_the_node_that_is_restarted(tmp_path: Path, server: redis.Redis) -> None:
    store = store_on(tmp_path)
    at_revision(store, 3)
    server.flushall()
    with pytest.raises(ControlStoreError, match="restart the node that has seen the highest revision"):
        store.refresh()
    again = store_on(tmp_path)
    store.refresh()
    assert again.read() == store.read() == msgspec.structs.replace(SOME, revision=3)
    for one in (store, again):
        one.close()


LOSSY = {**DURABLE, "maxmemory-policy": "allkeys-lru", "appendfsync": "everysec"}
WANTED = "the server may lose state; set maxmemory-policy noeviction, appendfsync always"


def test_a_server_that_was_down_at_the_start_is_examined_when_it_comes(tmp_path: Path) -> None:
    store = store_on(tmp_path)
    with redis_server(tmp_path, **LOSSY) as url:
        for ask in (store.refresh, lambda: store.compare_and_set(0, SOME)):
            with pytest.raises(ControlStoreError, match=WANTED):
                ask()
        with redis.Redis.from_url(url) as client:
            assert not client.keys()
    with redis_server(tmp_path, **DURABLE):
        assert store.compare_and_set(0, SOME).revision == 1
    store.close()


def test_a_server_is_examined_again_when_it_comes_back(tmp_path: Path) -> None:
    with redis_server(tmp_path, **DURABLE):
        store = store_on(tmp_path)
        at_revision(store, 2)
    with redis_server(tmp_path, **LOSSY), pytest.raises(ControlStoreError, match=WANTED):
        store.refresh()
    with redis_server(tmp_path, **DURABLE):
        store.refresh()
        assert store.compare_and_set(2, SOME).revision == 3
    store.close()


def test_a_server_that_comes_late_and_empty_takes_over_what_the_node_kept(tmp_path: Path) -> None:
    FileControlStore(tmp_path / "one").compare_and_set(0, SOME)
    store = store_on(tmp_path)
    with redis_server(tmp_path, **DURABLE):
        store.refresh()
        other = store_on(tmp_path, "other")
        assert other.read() == store.read() == msgspec.structs.replace(SOME, revision=1)
        other.close()
    store.close()


def test_a_server_with_another_history_of_the_same_length_is_refused(tmp_path: Path, server: redis.Redis) -> None:
    store = store_on(tmp_path)
    at_revision(store, 2)
    server.flushall()
    with pytest.raises(ControlStoreError, match="it lost changes"):
        store.refresh()
    other = store_on(tmp_path, "other")
    other.compare_and_set(0, State())
    other.compare_and_set(1, State())
    with pytest.raises(ControlStoreError, match="the server is at another revision 2, this node has seen 2"):
        store.refresh()
    for one in (store, other):
        one.close()


@pytest.fixture
def losing(tmp_path: Path, server: redis.Redis) -> Iterator[LosesReplies]:
    made = LosesReplies(tmp_path)
    yield made
    made.close()


def test_a_change_whose_answer_was_lost_is_made_once(tmp_path: Path, losing: LosesReplies, server: redis.Redis) -> None:
    store = RedisControlStore(losing.url, "bank", FileControlStore(tmp_path / "one"))
    at_revision(store, 1)
    losing.losing = 1
    assert store.compare_and_set(1, State(default_service="lost")) == State(default_service="lost", revision=2)
    assert losing.losing == 0
    assert server.hget("tessera:control:bank", "revision") == b"2"
    with pytest.raises(ConflictError, match="it is at revision 2"):
        store.compare_and_set(1, SOME)
    store.close()


def test_a_change_of_which_the_server_never_says_whether_it_is_made_is_in_doubt(
    tmp_path: Path, losing: LosesReplies
) -> None:
    store = RedisControlStore(losing.url, "bank", FileControlStore(tmp_path / "one"))
    at_revision(store, 1)
    losing.losing = 2
    with pytest.raises(InDoubtError, match="it may have made the change all the same"):
        store.compare_and_set(1, State(default_service="lost"))
    assert store.read().revision == 1
    store.refresh()
    assert store.read() == State(default_service="lost", revision=2)
    store.close()


def test_a_report_that_this_version_cannot_read_hides_no_other(tmp_path: Path, server: redis.Redis) -> None:
    store = store_on(tmp_path)
    store.report(ReplicaReport(replica="here", revision=0))
    (now_s, _) = server.time()
    server.hset("tessera:control:bank:replicas", "later@1", f'{now_s} {{"replica": {{"name": "later"}}}}')
    assert [report.replica for report in store.reports()] == ["here"]
    store.close()


class Reconnecting(RedisControlStore):
    """Another thread makes a connection while the server is examined."""

    meanwhile = False

    def _check(self) -> None:
        super()._check()
        if self.meanwhile:
            self.meanwhile = False
            self._redis.connection_pool.make_connection().connect()


def test_a_connection_that_came_while_another_was_examined_is_examined_too(tmp_path: Path) -> None:
    store = Reconnecting(url_of(tmp_path), "bank", FileControlStore(tmp_path / "one"))
    with redis_server(tmp_path, **DURABLE) as url, redis.Redis.from_url(url) as client:
        store.meanwhile = True
        store.refresh()
        client.config_set("appendfsync", "everysec")
        with pytest.raises(ControlStoreError, match="set appendfsync always"):
            store.refresh()
    store.close()
