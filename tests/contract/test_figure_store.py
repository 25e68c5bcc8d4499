"""What every FigureStore keeps to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from serving.figures.counts import Subject
from serving.figures.redis import RedisFigureStore
from serving.figures.sqlite import FILE, SqliteFigureStore
from serving.figures.store import FEEDBACK_DAYS, FigureStore, MemoryFigureStore, Outcome
from tests.redis_server import DURABLE, LosesReplies, redis_server, url_of

A, B = Subject("s", "m:1"), Subject("s", 'm:"2":x', shadow=True)
TODAY = 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis"), **DURABLE) as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], FigureStore]]:
    """Stores as so many replicas see them."""
    made: list[FigureStore] = []
    memory = MemoryFigureStore()
    makers: dict[str, Callable[[], FigureStore]] = {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteFigureStore(tmp_path),
        "redis": lambda: RedisFigureStore(request.getfixturevalue("server"), tmp_path.name.lower()),
    }

    def one() -> FigureStore:
        made.append(makers[request.param]())
        return made[-1]

    yield one
    for store in made:
        store.close()


def outcome(number: int, cell: int = 5, day: int = TODAY) -> Outcome:
    return Outcome(number.to_bytes(12, "big"), day, A, cell)


def test_counts_of_replicas_are_summed(make: Callable[[], FigureStore]) -> None:
    one, two = make(), make()
    one.add({A: {0: 1, 7: 2}, B: {3: 4}})
    two.add({A: {7: 5}})
    assert one.read() == two.read() == {A: {0: 1, 7: 7}, B: {3: 4}}


def test_an_outcome_is_taken_once(make: Callable[[], FigureStore]) -> None:
    one, two = make(), make()
    assert one.take([outcome(1), outcome(2), outcome(1)], TODAY) == 2
    assert two.take([outcome(2), outcome(3)], TODAY + 100) == 1
    assert two.read() == {A: {5: 3}}


def test_many_at_once_are_taken_once(make: Callable[[], FigureStore]) -> None:
    stores = [make() for _ in range(4)]
    outcomes = [outcome(number) for number in range(1_200)]
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda store: store.take(outcomes, TODAY), stores))
    assert sum(taken) == 1_200
    assert stores[0].read() == {A: {5: 1_200}}


def test_the_very_old_is_forgotten(make: Callable[[], FigureStore]) -> None:
    store = make()
    store.take([outcome(1)], TODAY)
    assert store.take([outcome(2, day=TODAY + FEEDBACK_DAYS + 1)], TODAY + FEEDBACK_DAYS + 1) == 1
    assert store.read() == {A: {5: 2}}


def test_a_file_keeps_what_was_taken_over_a_restart(tmp_path: Path) -> None:
    before = SqliteFigureStore(tmp_path)
    before.add({B: {1: 1}})
    before.take([outcome(1)], TODAY)
    before.close()
    after = SqliteFigureStore(tmp_path)
    assert after.take([outcome(1)], TODAY) == 0
    assert after.read() == {A: {5: 1}, B: {1: 1}}
    after.close()
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


_OPEN = """
import sys
from pathlib import Path
from serving.figures.sqlite import SqliteFigureStore
print("ready", flush=True)
for line in sys.stdin:
    SqliteFigureStore(Path(line.strip())).close()
    print("done", flush=True)
"""


def test_workers_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", _OPEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [worker.stdout.readline() for worker in workers]  # type: ignore[union-attr]
    for attempt in range(40):
        for worker in workers:
            worker.stdin.write(f"{tmp_path / str(attempt)}\n")  # type: ignore[union-attr]
            worker.stdin.flush()  # type: ignore[union-attr]
        said += [worker.stdout.readline() for worker in workers]  # type: ignore[union-attr]
    for worker in workers:
        worker.communicate()
    assert said == ["ready\n"] * 3 + ["done\n"] * 120


def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(OSError, match=FILE):
        SqliteFigureStore(tmp_path)


def test_a_server_that_is_gone_is_an_oserror(tmp_path: Path) -> None:
    store = RedisFigureStore(f"unix://{tmp_path}/none.sock", "bank")
    with pytest.raises(OSError, match="does not answer"):
        store.read()


def test_counts_whose_acknowledgement_was_lost_are_added_once(tmp_path: Path) -> None:
    with redis_server(tmp_path, **DURABLE):
        losing = LosesReplies(tmp_path)
        store = RedisFigureStore(losing.url, "bank")
        store.add({A: {0: 1}})
        losing.losing = 2
        store.add({A: {0: 10}})
        with pytest.raises(OSError, match="does not answer"):
            store.add({A: {0: 100}})
        store.add({A: {0: 1_000}})
        losing.losing = 1
        store.add({A: {0: 10_000}})
        assert store.read() == {A: {0: 11_011}}
        store.close()
        losing.close()


def test_counts_that_could_not_be_sent_go_with_a_reading_or_the_end(tmp_path: Path) -> None:
    one, two = (RedisFigureStore(url_of(tmp_path), "bank") for _ in range(2))
    for store in (one, two):
        store.add({A: {0: 1}})
    with redis_server(tmp_path, **DURABLE):
        assert one.read() == {A: {0: 1}}
        two.close()
        assert one.read() == {A: {0: 2}}
        one.close()


def test_counts_that_come_late_are_not_added_again(tmp_path: Path) -> None:
    """As from a connection that a replica has given up, whose server hung."""
    with redis_server(tmp_path, **DURABLE) as url, redis.Redis.from_url(url) as client:
        store = RedisFigureStore(url, "bank")
        with client.monitor() as monitor:
            store.add({A: {0: 1}})
            late = next(said["command"] for said in monitor.listen() if said["command"].startswith("EVALSHA"))
        store.add({A: {0: 10}})
        client.execute_command(*late.split())
        assert store.read() == {A: {0: 11}}
        store.close()
