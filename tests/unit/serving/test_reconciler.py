from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from loaders.loader import LoadError
from loaders.signature import Batch
from loaders.tessera import TesseraLoader
from serving.errors import ConflictError, UnknownNameError
from serving.lifecycle import ModelState
from serving.pool import ModelId, ModelPool
from serving.reconciler import MAX_GONE, Reconciler, public_reason
from tests.clock import Clock
from tests.unit.serving.halves import publish

V1, V2 = ModelId("m", "1"), ModelId("m", "2")


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    for model in (V1, V2):
        publish({"bank": tmp_path}, model)
    return tmp_path


@pytest.fixture
def pool() -> ModelPool:
    return ModelPool(1 << 20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def reconciler(registry: Path, pool: ModelPool, clock: Clock) -> AsyncIterator[Reconciler]:
    reconciler = Reconciler(registry, "bank", pool, clock)
    yield reconciler
    await reconciler.stop()


@pytest.fixture
def corrupt(registry: Path) -> Callable[[], Callable[[], None]]:
    """Breaks the weights of version 1; returns what mends them."""

    def now() -> Callable[[], None]:
        path = next(registry.glob("m/1/*/weights.npy"))
        intact = path.read_bytes()
        path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        return lambda: path.write_bytes(intact) and None

    return now


@pytest.fixture
def slow_load(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[ModelId]]:
    """Loads wait for the event, and are counted."""
    go, seen = threading.Event(), []
    load = TesseraLoader.load

    def wait(self: TesseraLoader) -> object:
        seen.append(ModelId(self.artifact.manifest.model, self.artifact.manifest.version))
        assert go.wait(10)
        return load(self)

    monkeypatch.setattr(TesseraLoader, "load", wait)
    return go, seen


async def test_a_wanted_model_becomes_ready_and_answers(reconciler: Reconciler, pool: ModelPool) -> None:
    reconciler.apply({V1})
    assert (await reconciler.settled(V1)).state is ModelState.READY
    with pool.acquire(V1) as handle:
        outputs = handle.servable.predict(Batch(np.array([[4.0]]), np.empty((1, 0), dtype=np.object_)))
        assert outputs["partial"].tolist() == [[2.0]]
        assert handle.bytes > 0


async def test_what_is_not_wanted_any_more_goes(reconciler: Reconciler, pool: ModelPool) -> None:
    reconciler.apply({V1, V2})
    await reconciler.all_settled()
    reconciler.apply({V2})
    assert (await reconciler.settled(V1)).state is ModelState.UNLOADED
    assert pool.find(V1) is None
    assert pool.find(V2) is not None


async def test_applying_the_same_again_changes_nothing(reconciler: Reconciler, pool: ModelPool, clock: Clock) -> None:
    reconciler.apply({V1})
    await reconciler.all_settled()
    before = (pool.find(V1), reconciler.lives[V1])
    clock.tick(5)
    reconciler.apply({V1})
    await reconciler.all_settled()
    assert (pool.find(V1), reconciler.lives[V1]) == before


async def test_one_model_is_loaded_once_however_many_ask(
    reconciler: Reconciler, slow_load: tuple[threading.Event, list[ModelId]]
) -> None:
    go, seen = slow_load
    waiting = []
    for _ in range(20):
        reconciler.apply({V1}, again={V1})
        waiting.append(asyncio.ensure_future(reconciler.loaded(V1)))
    await asyncio.sleep(0)
    go.set()
    assert len({id(handle) for handle in await asyncio.gather(*waiting)}) == 1
    assert seen == [V1]


async def test_loading_does_not_hold_up_the_event_loop(
    reconciler: Reconciler, slow_load: tuple[threading.Event, list[ModelId]]
) -> None:
    go, _ = slow_load
    reconciler.apply({V1})
    await asyncio.sleep(0)
    assert reconciler.lives[V1].state is ModelState.LOADING
    go.set()
    await reconciler.all_settled()


async def test_a_caller_that_goes_away_stops_nothing(
    reconciler: Reconciler, slow_load: tuple[threading.Event, list[ModelId]]
) -> None:
    go, _ = slow_load
    reconciler.apply({V1})
    asking = asyncio.ensure_future(reconciler.settled(V1))
    await asyncio.sleep(0)
    asking.cancel()
    go.set()
    assert (await reconciler.settled(V1)).state is ModelState.READY


async def test_a_model_unwanted_while_it_loads_goes_when_it_is_there(
    reconciler: Reconciler, pool: ModelPool, slow_load: tuple[threading.Event, list[ModelId]]
) -> None:
    go, _ = slow_load
    reconciler.apply({V1})
    await asyncio.sleep(0)
    reconciler.apply(())
    go.set()
    assert (await reconciler.settled(V1)).state is ModelState.UNLOADED
    assert pool.find(V1) is None


async def test_a_model_wanted_again_while_it_drains_is_loaded_anew(reconciler: Reconciler, pool: ModelPool) -> None:
    reconciler.apply({V1})
    await reconciler.all_settled()
    old = pool.acquire(V1)
    with old:
        reconciler.apply(())
        await asyncio.sleep(0)
        assert reconciler.lives[V1].state is ModelState.DRAINING
        reconciler.apply({V1})
    assert await reconciler.loaded(V1) is not old


async def test_a_failure_keeps_its_reason_and_time_until_it_is_asked_for_again(
    reconciler: Reconciler, clock: Clock, corrupt: Callable[[], Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    mend = await asyncio.to_thread(corrupt)
    reconciler.apply({V1, V2})
    await reconciler.all_settled()
    life = reconciler.lives[V1]
    assert (life.state, life.since_s) == (ModelState.FAILED, 1_000.0)
    assert "weights.npy is corrupt" in life.reason
    assert "weights.npy is corrupt" in caplog.text
    assert reconciler.lives[V2].state is ModelState.READY

    await asyncio.to_thread(mend)
    clock.tick(60)
    reconciler.apply({V1, V2})
    assert (await reconciler.settled(V1)) == life
    with pytest.raises(ConflictError, match="corrupt"):
        await reconciler.loaded(V1)
    reconciler.apply({V1, V2}, again={V1})
    assert (await reconciler.loaded(V1)).id == V1
    assert reconciler.lives[V1].since_s == 1_060.0


async def test_a_missing_version_fails_naming_it(reconciler: Reconciler) -> None:
    reconciler.apply({ModelId("m", "9")})
    assert "no half of m/9 for party 'bank'" in (await reconciler.settled(ModelId("m", "9"))).reason


async def test_a_model_that_does_not_fit_fails_with_the_limit(registry: Path) -> None:
    reconciler = Reconciler(registry, "bank", ModelPool(4))
    reconciler.apply({V1})
    life = await reconciler.settled(V1)
    assert life.state is ModelState.FAILED
    assert "limits.pool_max_bytes = 4" in life.reason


async def test_a_defect_of_a_loader_is_logged_and_not_told(
    reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: TesseraLoader) -> object:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(TesseraLoader, "load", broken)
    reconciler.apply({V1, V2})
    await reconciler.all_settled()
    assert reconciler.lives[V1].reason == "loading m/1 failed unexpectedly; this party's log says why"
    assert "secret detail" in caplog.text


async def test_stop_waits_for_loads_and_lets_everything_go(
    registry: Path, pool: ModelPool, slow_load: tuple[threading.Event, list[ModelId]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    go, _ = slow_load
    reconciler = Reconciler(registry, "bank", pool)
    reconciler.apply({V1, V2})
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(reconciler.stop())
    await asyncio.sleep(0)
    go.set()
    await stopping
    assert {life.state for life in reconciler.lives.values()} == {ModelState.UNLOADED}
    with pytest.raises(UnknownNameError):
        pool.acquire(V1)


async def test_a_model_that_was_never_seen_is_new(reconciler: Reconciler, clock: Clock) -> None:
    life = await reconciler.settled(V1)
    assert (life.state, life.since_s) == (ModelState.NEW, clock.now)


async def test_forget_drops_only_what_is_settled_and_gone(reconciler: Reconciler) -> None:
    reconciler.apply({V1})
    await reconciler.all_settled()
    reconciler.forget(V1)
    assert V1 in reconciler.lives
    reconciler.apply(())
    await reconciler.settled(V1)
    reconciler.forget(V1)
    assert V1 not in reconciler.lives


async def test_failures_are_listed_but_not_without_bound(reconciler: Reconciler, clock: Clock) -> None:
    names = [ModelId("absent", str(number)) for number in range(MAX_GONE + 20)]
    for name in names:
        clock.tick(1)
        reconciler.apply({V1, name})
        await reconciler.settled(name)
    reconciler.apply({V1, names[0]})
    await reconciler.all_settled()
    listed = set(reconciler.lives)
    assert listed >= {V1, names[0], *names[-MAX_GONE:]}
    assert len(listed) <= MAX_GONE + 2


async def test_a_loader_is_told_to_let_go(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(TesseraLoader, "unload", lambda self: told.append(self.artifact.manifest.version))
    reconciler.apply({V1, V2})
    await reconciler.all_settled()
    assert told == []
    reconciler.apply({V2})
    await reconciler.settled(V1)
    assert told == ["1"]


def test_reasons_name_no_path_of_the_server() -> None:
    assert "secret/place" not in public_reason(PermissionError(13, "Permission denied", "secret/place"))
    assert public_reason(LoadError("weights.npy is not there")) == "weights.npy is not there"
