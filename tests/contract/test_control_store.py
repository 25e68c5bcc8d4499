"""What every ControlStore keeps to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from serving.control import (
    Binding,
    ControlStore,
    FileControlStore,
    Hold,
    MemoryControlStore,
    Service,
    State,
    Variant,
    WantedModel,
)
from serving.errors import ConflictError


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ControlStore:
    makers: dict[str, Callable[[], ControlStore]] = {
        "memory": MemoryControlStore,
        "file": lambda: FileControlStore(tmp_path / "state"),
    }
    return makers[request.param]()


BINDING = Binding(
    variants=(Variant(model="m", version="1", weight=10_000, ranges=((0, 4_000), (4_000, 10_000))),),
    app="scorecard",
    app_parameters='{"offset": 600}',
)
FULL = State(
    models=(WantedModel(model="m", version="1", epoch=3),),
    services={"credit": Service(revision=2, epoch=4, salt="00ff", current=BINDING, previous=BINDING)},
    default_service="credit",
    holds=(Hold(party="bank", service="s", model="m", version="1", revision=7, expires_s=1.7e9),),
)


def test_a_new_store_is_empty(store: ControlStore) -> None:
    assert store.read() == State()
    assert store.read().revision == 0


def test_what_was_set_is_read(store: ControlStore) -> None:
    stored = store.compare_and_set(0, FULL)
    assert stored == msgspec.structs.replace(FULL, revision=1)
    assert store.read() == stored


def test_the_revision_rises_by_one_whatever_the_caller_says(store: ControlStore) -> None:
    store.compare_and_set(0, State(revision=77))
    assert store.read().revision == 1
    store.compare_and_set(1, State())
    assert store.read().revision == 2


@pytest.mark.parametrize("seen", [0, 2])
def test_a_stale_revision_is_refused_and_changes_nothing(store: ControlStore, seen: int) -> None:
    before = store.compare_and_set(0, FULL)
    with pytest.raises(ConflictError, match="it is at revision 1"):
        store.compare_and_set(seen, State())
    assert store.read() == before


def test_of_many_writers_at_once_one_wins(store: ControlStore) -> None:
    won: list[str] = []
    start = threading.Barrier(8)

    def write(name: str) -> None:
        start.wait()
        try:
            store.compare_and_set(0, State(default_service=name))
        except ConflictError:
            return
        won.append(name)

    writers = [threading.Thread(target=write, args=(f"s{number}",)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert won == [store.read().default_service]
    assert store.read().revision == 1
