from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from serving.control import Binding, FileControlStore, MemoryControlStore, Service, State, Variant
from serving.errors import ConflictError, NotKeptError, NotReadyError
from serving.wanted import Wanted
from tests.gated_store import Gated

BINDING = Binding(variants=(Variant(model="m", version="1", weight=10_000, ranges=((0, 10_000),)),), app="passthrough")


def with_service(state: State, name: str) -> State:
    service = Service(revision=1, epoch=state.revision + 1, salt="00", current=BINDING)
    return msgspec.structs.replace(state, services={**state.services, name: service})


@pytest.fixture
def wanted() -> Wanted:
    return Wanted(MemoryControlStore())


@pytest.fixture
def kept(tmp_path: Path) -> Wanted:
    return Wanted(FileControlStore(tmp_path))


async def test_requests_see_a_change_once_it_is_stored(wanted: Wanted) -> None:
    table, before = wanted.routes, wanted.routes.current
    await wanted.change(lambda state: with_service(state, "s"))
    assert before.services == {}
    assert table.current.services["s"].variants[0].name == "m:1"
    assert table.current.explicit_epoch == wanted.state.revision == 1


async def test_epochs_rise_over_restarts(tmp_path: Path, kept: Wanted) -> None:
    await kept.change(lambda state: with_service(state, "s"))
    before = kept.routes.current.services["s"].epoch
    again = Wanted(await asyncio.to_thread(FileControlStore, tmp_path))
    assert again.routes.current.services["s"].epoch == before
    await again.change(lambda state: with_service(state, "s"))
    assert again.routes.current.services["s"].epoch > before


async def test_edits_at_once_all_happen(wanted: Wanted) -> None:
    names = [f"s{number}" for number in range(20)]
    await asyncio.gather(*(wanted.change(lambda state, name=name: with_service(state, name)) for name in names))
    assert sorted(wanted.state.services) == sorted(wanted.routes.current.services) == sorted(names)
    assert wanted.state.revision == 20


async def test_an_edit_that_refuses_changes_nothing(wanted: Wanted) -> None:

    def refuse(state: State) -> State:
        raise ConflictError("no")

    with pytest.raises(ConflictError, match="no"):
        await wanted.change(refuse)
    assert wanted.state == State()


async def test_a_full_disk_changes_no_route(tmp_path: Path, kept: Wanted) -> None:
    (tmp_path / "state.draft").symlink_to("/dev/full")
    with pytest.raises(NotKeptError, match="the change is not kept: No space left on device") as refused:
        await kept.change(lambda state: with_service(state, "s"))
    assert not refused.value.in_doubt
    assert kept.routes.current.services == {}
    await kept.change(lambda state: with_service(state, "s"))
    assert "s" in kept.routes.current.services


async def test_who_watches_sees_the_state_now_and_after_every_change(wanted: Wanted) -> None:
    seen: list[int] = []
    wanted.watch(lambda state: seen.append(state.revision))
    await wanted.change(lambda state: with_service(state, "s"))
    await wanted.change(lambda state: with_service(state, "t"))
    assert seen == [0, 1, 2]


async def test_requests_see_a_change_whose_caller_went_away() -> None:
    store = Gated()
    wanted = Wanted(store)
    store.gate.clear()
    changing = asyncio.ensure_future(wanted.change(lambda state: with_service(state, "s")))
    while not store.writes:
        await asyncio.sleep(0)
    changing.cancel()
    store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await changing
    assert "s" in wanted.routes.current.services


def test_a_service_whose_app_nobody_knows_leaves_the_others_alone() -> None:
    store = MemoryControlStore()
    odd = msgspec.structs.replace(BINDING, app="nobody", app_parameters="{}")
    services = {
        name: Service(revision=1, epoch=1, salt="00", current=binding)
        for name, binding in (("odd", odd), ("s", BINDING))
    }
    store.compare_and_set(0, State(services=services, default_service="odd"))
    routes = Wanted(store).routes.current
    assert routes.target(("s", "", ""), "u").model.version == "1"
    for address in (("odd", "", ""), ("", "odd", ""), ("", "", "")):
        with pytest.raises(NotReadyError, match="service 'odd' cannot be served here: unknown app 'nobody'"):
            routes.target(address, "u")
