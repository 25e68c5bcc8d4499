from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loaders.artifact import Artifact, HalfRef
from loaders.cost import Cost
from loaders.loader import Outputs, Servable
from loaders.merge import merge_rule
from loaders.signature import Batch, Signature
from serving.errors import ConflictError, LimitError, UnknownNameError, WrongRoleError
from serving.pool import LONG_S, UNMEASURED, ModelHandle, ModelId, ModelPool
from tests.artifacts import linear_half

V1, V2 = ModelId("m", "1"), ModelId("m", "2")


class Nothing(Servable):
    signature = Signature((), linear_half("m", "1", "guest", "bank", {"x": 0.5})[0].outputs)

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def predict(self, batch: Batch) -> Outputs:
        self.threads.append(threading.current_thread())
        return {}


def handle(model: ModelId = V1, bytes_: int = 10, role: str = "guest", cost: Cost = UNMEASURED) -> ModelHandle:
    half, _ = linear_half(model.model, model.version, role, "bank", {"x": 0.5})
    binding = [HalfRef("guest", "bank", "00"), HalfRef("host", "shop", "11"), HalfRef("host", "telco", "22")]
    half = msgspec.structs.replace(half, binding=binding)
    return ModelHandle(Artifact(Path(), half, "00", "ab"), Nothing(), merge_rule(half.merge, Nothing()), bytes_, cost)


async def test_a_batch_that_takes_long_runs_on_a_thread_and_others_here() -> None:
    pool, made = ModelPool(100), handle(cost=Cost((1, 10), (LONG_S / 2, 2 * LONG_S)))
    assert isinstance(made.servable, Nothing)
    for rows in (1, 10):
        await pool.predict(made, Batch(np.zeros((rows, 0)), np.empty((rows, 0), dtype=np.object_)))
    first, second = made.servable.threads
    assert first is threading.main_thread()
    assert second is not threading.main_thread()
    assert made.together < 10
    await pool.threads.stop()


def test_a_handle_is_what_was_put() -> None:
    pool = ModelPool(100)
    pool.put(handle())
    with pool.acquire(V1) as borrowed:
        assert (borrowed.id, borrowed.artifact.binding_digest, borrowed.hosts) == (V1, "ab", ("shop", "telco"))
        assert borrowed.merge([np.zeros((1, 1)), np.zeros((1, 1))]) == 0.5


def test_a_host_asks_nobody() -> None:
    assert handle(role="host").hosts == ()


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(UnknownNameError, match="m/2 is not loaded"):
        ModelPool(100).acquire(V2)


def test_a_digest_that_differs_is_named_with_ours() -> None:
    handle().check_binding("ab")
    with pytest.raises(ConflictError, match="m/1 is bound as ab here and as cd at the caller"):
        handle().check_binding("cd")


def test_a_reader_keeps_its_map_while_a_writer_replaces_it() -> None:
    pool = ModelPool(100)
    pool.put(handle())
    borrowed = pool.acquire(V1)
    pool.put(handle())
    assert pool.acquire(V1) is not borrowed
    assert borrowed.id == V1


async def test_a_hosts_half_is_there_for_its_guest_and_answers_no_caller() -> None:
    pool = ModelPool(100)
    pool.put(handle(role="host"))
    with pytest.raises(WrongRoleError, match=f"this party is host of {V1}; its guest answers"):
        pool.acquire(V1)
    assert pool.half(V1) is pool.find(V1)
    await pool.remove(V1)
    for look in (pool.acquire, pool.half):
        with pytest.raises(UnknownNameError, match="not loaded"):
            look(V1)


async def test_removal_waits_for_the_last_borrower_and_lets_no_new_one_in() -> None:
    pool = ModelPool(100)
    pool.put(handle())
    first, second = pool.acquire(V1), pool.acquire(V1)
    with first:
        with second:
            removal = asyncio.ensure_future(pool.remove(V1))
            await asyncio.sleep(0)
            with pytest.raises(UnknownNameError):
                pool.acquire(V1)
        await asyncio.sleep(0)
        assert not removal.done()
    await removal


async def test_an_exception_unpins_too() -> None:
    pool = ModelPool(100)
    pool.put(handle())
    with pytest.raises(KeyError), pool.acquire(V1):
        raise KeyError
    await pool.remove(V1)


async def test_removing_what_is_not_there_is_fine() -> None:
    await ModelPool(100).remove(V1)


def test_a_full_pool_says_who_holds_the_memory() -> None:
    pool = ModelPool(100)
    pool.put(handle(V1, 60))
    message = r"m/2 needs 41 bytes of limits.pool_max_bytes = 100; held: m/1 60"
    with pytest.raises(LimitError, match=message), pool.reserve(V2, 41):
        pass
    with pool.reserve(V2, 40):
        pool.put(handle(V2, 40))


def test_two_loads_at_once_do_not_share_the_same_room() -> None:
    pool = ModelPool(100)
    with pool.reserve(V1, 60), pytest.raises(LimitError, match="held: m/1 60"), pool.reserve(V2, 60):
        pass
    with pool.reserve(V2, 60):
        pass


async def test_memory_counts_until_the_last_borrower_is_gone() -> None:
    pool = ModelPool(100)
    pool.put(handle(V1, 60))
    with pool.acquire(V1):
        removal = asyncio.ensure_future(pool.remove(V1))
        await asyncio.sleep(0)
        with pytest.raises(LimitError), pool.reserve(V2, 60):
            pass
    await removal
    with pool.reserve(V2, 60):
        pass


def test_the_pool_knows_what_was_acquired_last() -> None:
    pool = ModelPool(100)
    pool.put(handle(V1))
    pool.put(handle(V2))

    def order() -> list[ModelId]:
        return [one.id for one in sorted(pool.loaded, key=lambda one: one.used)]

    assert order() == [V1, V2]
    pool.acquire(V1)
    assert order() == [V2, V1]
    pool.find(V2)  # a look is no use
    assert order() == [V2, V1]


def test_what_is_lacking_counts_all_that_is_held() -> None:
    pool = ModelPool(100)
    pool.put(handle(V1, 60))
    with pool.reserve(V2, 30):
        assert (pool.lacking(10), pool.lacking(25)) == (0, 15)


def test_a_handle_is_in_use_between_with_and_its_end() -> None:
    pool = ModelPool(100)
    pool.put(handle())
    with pool.acquire(V1) as borrowed:
        assert borrowed.in_use
    assert not borrowed.in_use
