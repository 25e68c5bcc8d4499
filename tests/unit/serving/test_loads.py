"""Loads at several parties and replicas, some of which never answer: one deadline, and what each of them made of it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from loaders.tessera import TesseraLoader
from serving import reconciler
from serving.control import MemoryControlStore
from serving.errors import ConflictError
from serving.lifecycle import LoadState, ReplicaOutcome
from serving.load_time import LoadTime
from serving.pool import ModelId
from tessera.v1 import admin_pb2 as wire
from tessera.v1 import federation_pb2
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1 = ModelId("trio", "1")
PARTIES = ("bank", "shop", "telco")
LIMIT_S = 0.6

Block = Callable[[Path], None]


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def block(stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Block]:
    """Has loads from a registry wait until the test is over, and its parties are about to stop."""
    over, blocked = threading.Event(), set[Path]()
    load = TesseraLoader.load

    def slow(loader: TesseraLoader) -> object:
        if blocked & set(loader.artifact.path.parents):
            over.wait(10)
        return load(loader)

    monkeypatch.setattr(TesseraLoader, "load", slow)
    yield blocked.add
    over.set()


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    roots = {party: tmp_path / party for party in PARTIES}
    publish(roots, V1)
    return roots


async def started(
    stack: AsyncExitStack, roots: dict[str, Path], load_timeout_s: float = LIMIT_S, **guest: object
) -> dict[str, Party]:
    hosts = {
        party: await stack.enter_async_context(running(party, roots[party], load_timeout_s=load_timeout_s))
        for party in PARTIES[1:]
    }
    addresses = {party: host.address for party, host in hosts.items()}
    bank = await stack.enter_async_context(
        running("bank", roots["bank"], peers=addresses, load_timeout_s=load_timeout_s, **guest)
    )
    return {"bank": bank, **hosts}


def told(outcomes: list[ReplicaOutcome]) -> list[tuple[str, str, LoadState]]:
    return [(one.party, one.replica, one.state) for one in outcomes]


async def test_a_host_that_does_not_answer_in_time_is_named_and_the_others_stay_loaded(
    stack: AsyncExitStack, roots: dict[str, Path], block: Block
) -> None:
    block(roots["telco"])
    parties = await started(stack, roots)
    outcomes, _ = await parties["bank"].publishing.load(V1)
    assert told(outcomes) == [
        ("bank", "0", LoadState.LOADED),
        ("shop", "0", LoadState.LOADED),
        ("telco", "0", LoadState.FAILED),
    ]
    assert outcomes[2].reason.startswith("trio/1 did not load within 0.")
    assert outcomes[2].reason.endswith("(the caller's deadline)")
    for party in ("bank", "shop"):
        assert parties[party].pool.find(V1) is not None
        assert [model.model for model in parties[party].store.read().models] == ["trio"]


async def test_one_deadline_covers_replicas_and_hosts(
    stack: AsyncExitStack, roots: dict[str, Path], tmp_path: Path, block: Block
) -> None:
    copy, store = tmp_path / "copy", MemoryControlStore()
    await asyncio.to_thread(shutil.copytree, roots["bank"], copy)
    block(copy)
    block(roots["shop"])
    parties = await started(stack, roots, store=store, replica="one")
    await stack.enter_async_context(running("bank", copy, store, replica="other"))
    while len(await asyncio.to_thread(store.reports)) < 2:
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcomes, _ = await parties["bank"].publishing.load(V1)
    assert loop.time() - began < 1.5 * LIMIT_S
    assert told(outcomes) == [
        ("bank", "one", LoadState.LOADED),
        ("bank", "other", LoadState.FAILED),
        ("shop", "0", LoadState.FAILED),
        ("telco", "0", LoadState.LOADED),
    ]
    assert outcomes[1].reason == "trio/1 did not load within 0.6 s (limits.load_timeout_s); it is LOADING there"


async def test_a_caller_with_less_time_learns_what_came_of_it(
    stack: AsyncExitStack, roots: dict[str, Path], block: Block
) -> None:
    block(roots["telco"])
    parties = await started(stack, roots, load_timeout_s=30.0)
    request = wire.PublishLoadRequest(model="trio", version="1")
    reply = await parties["bank"].admin.PublishLoad(request, timeout=1.0)
    assert [(one.party, one.state) for one in reply.replicas] == [
        ("bank", federation_pb2.LOAD_STATE_LOADED),
        ("shop", federation_pb2.LOAD_STATE_LOADED),
        ("telco", federation_pb2.LOAD_STATE_FAILED),
    ]


async def test_a_half_that_this_replica_does_not_load_in_time_is_asked_of_nobody_else(
    stack: AsyncExitStack, roots: dict[str, Path], block: Block
) -> None:
    block(roots["bank"])
    parties = await started(stack, roots, load_timeout_s=0.05)
    with pytest.raises(ConflictError, match=r"trio/1 did not load within 0\.05 s \(limits\.load_timeout_s\)"):
        await parties["bank"].publishing.load(V1)
    assert not parties["shop"].publishing.models()


async def test_a_registry_that_does_not_answer_is_waited_for_no_longer(
    stack: AsyncExitStack, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parties, over = await started(stack, roots, load_timeout_s=0.05), threading.Event()
    monkeypatch.setattr(reconciler, "find_half", lambda *half: over.wait(10))
    with pytest.raises(ConflictError, match=r"trio/1 did not load within 0\.05 s"):
        await parties["bank"].publishing.load(V1)
    over.set()


@pytest.mark.parametrize(
    ("caller_s", "within_s", "whose"),
    [
        (None, 60.0, "limits.load_timeout_s"),
        (100.0, 60.0, "limits.load_timeout_s"),
        (60.0, 59.5, "the caller's deadline"),
        (1.0, 0.9, "the caller's deadline"),
    ],
)
async def test_the_caller_gets_its_answer_before_its_time_is_over(
    caller_s: float | None, within_s: float, whose: str
) -> None:
    time = LoadTime.of(60.0, caller_s)
    assert (time.within_s, time.whose) == (within_s, whose)
    assert 0 < time.left_s <= within_s
