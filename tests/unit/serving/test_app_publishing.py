"""Apps over the admin port of one party: loaded, bound, swapped, unloaded, restored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from serving.audit import FILE, Event, Record
from serving.bindings import VariantWeight
from serving.control import ControlStore, FileControlStore, MemoryControlStore
from serving.errors import ConflictError, InvalidRequestError, NotReadyError
from serving.pool import ModelId
from serving.readiness import model_problems, service_problems
from serving.settings import AppSettings
from serving.transport import Code, RpcError
from tessera.v1 import admin_pb2 as wire
from tessera.v1 import federation_pb2
from tests.app_sources import store, times
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1 = ModelId("m", "1")
ALL = [VariantWeight(V1, 10_000)]


class Storage:
    """A registry with V1 and an app storage with versions 1 to 3 of `risk`, which multiply by 2, 3 and 4."""

    def __init__(self, folder: Path) -> None:
        self.registry, self.root = folder / "registry", folder / "apps"
        publish({"bank": self.registry}, V1)
        self.digests = {version: store(self.root, version, times(float(version) + 1)) for version in ("1", "2", "3")}

    @property
    def settings(self) -> AppSettings:
        return AppSettings(root=str(self.root), allowed=(self.digests["1"], self.digests["2"]))

    def records(self) -> list[Record]:
        return [msgspec.json.decode(line, type=Record) for line in (self.registry / FILE).read_bytes().splitlines()]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture
async def bank(storage: Storage, stack: AsyncExitStack) -> Party:
    return await started(stack, storage)


async def started(stack: AsyncExitStack, storage: Storage, control: ControlStore | None = None, **more: Any) -> Party:
    party = await stack.enter_async_context(
        running("bank", storage.registry, control, apps=more.pop("apps", storage.settings), **more)
    )
    await party.reconciler.all_settled()
    return party


async def load(party: Party, version: str, name: str = "risk") -> wire.LoadAppReply:
    return await party.admin.LoadApp(wire.LoadAppRequest(name=name, version=version))


async def unload(party: Party, version: str) -> None:
    await party.admin.UnloadApp(wire.UnloadAppRequest(name="risk", version=version))


async def refused(call: Any) -> tuple[Code, str]:
    with pytest.raises(RpcError) as error:
        await call
    return error.value.code, error.value.details


def bound(party: Party) -> str:
    return party.publishing.routes.current.services["s"].app.name


async def test_load_says_the_digest_and_what_each_replica_did(bank: Party, storage: Storage) -> None:
    reply = await load(bank, "1")
    assert reply.digest.hex() == storage.digests["1"]
    assert [(one.party, one.replica, one.state) for one in reply.replicas] == [
        ("bank", "0", federation_pb2.LOAD_STATE_LOADED)
    ]
    again = await load(bank, "1")
    assert [one.state for one in again.replicas] == [federation_pb2.LOAD_STATE_ALREADY_LOADED]


async def test_apps_are_listed_with_who_uses_them(bank: Party, storage: Storage) -> None:
    await load(bank, "1")
    await bank.publishing.load(V1)
    await bank.publishing.online("s", 0, ALL, "risk")
    apps = (await bank.admin.ListApps(wire.ListAppsRequest())).apps
    assert [(one.name, one.state) for one in apps[:-1]] == [
        (name, "BUILT_IN") for name in ("passthrough", "rules", "scorecard", "threshold")
    ]
    last = apps[-1]
    assert (last.name, last.version, last.state, list(last.used_by)) == ("risk", "1", "READY", ["service 's'"])
    assert (last.digest.hex(), last.since_ms > 0, last.reason) == (storage.digests["1"], True, "")


async def test_a_binding_names_a_version_or_takes_the_one_loaded_last(bank: Party) -> None:
    await bank.publishing.load(V1)
    for version in ("2", "1"):
        await load(bank, version)
    first = await bank.publishing.online("s", 0, ALL, "risk")
    assert (first.current.app, bound(bank)) == ("risk:1", "risk:1")
    second = await bank.publishing.online("s", 1, ALL, "risk:2", '{"plus": 1}')
    assert second.epoch > first.epoch
    assert bound(bank) == "risk:2"
    assert (await bank.publishing.rollback("s", 2)).current.app == "risk:1"


async def test_loading_changes_no_answer(bank: Party) -> None:
    await bank.publishing.load(V1)
    await load(bank, "1")
    before = await bank.publishing.online("s", 0, ALL, "risk")
    await load(bank, "2")
    assert bank.publishing.routes.current.services["s"].epoch == before.epoch
    assert bound(bank) == "risk:1"


@pytest.mark.parametrize(
    ("app", "parameters", "text"),
    [
        ("risk", "", "unknown app 'risk': there are passthrough, rules, scorecard, threshold$"),
        ("risk:1", "", "app risk:1 is not loaded at this party"),
        ("risk:1:2", "", "is not loaded at this party"),
        ("nobody", "", "unknown app 'nobody'"),
    ],
)
async def test_what_is_not_loaded_is_not_bound(bank: Party, app: str, parameters: str, text: str) -> None:
    await bank.publishing.load(V1)
    with pytest.raises(InvalidRequestError, match=text):
        await bank.publishing.online("s", 0, ALL, app, parameters)


async def test_wrong_parameters_are_refused(bank: Party) -> None:
    await bank.publishing.load(V1)
    await load(bank, "1")
    with pytest.raises(InvalidRequestError, match=r"parameters of app 'risk:1'.*minus"):
        await bank.publishing.online("s", 0, ALL, "risk", '{"minus": 1}')


async def test_what_a_binding_names_is_not_unloaded(bank: Party) -> None:
    await bank.publishing.load(V1)
    for version in ("1", "2"):
        await load(bank, version)
        await bank.publishing.online("s", int(version) - 1, ALL, f"risk:{version}")
    for version in ("1", "2"):  # the previous binding and the current one
        code, text = await refused(unload(bank, version))
        assert (code, text) == (Code.FAILED_PRECONDITION, f"app risk:{version} is needed by service 's'")
    await bank.publishing.online("s", 2, ALL, "risk:2")
    await unload(bank, "1")
    assert [str(one.life.id) for one in bank.publishing.apps.statuses()] == ["risk:2"]
    assert await refused(unload(bank, "1")) == (Code.NOT_FOUND, "app risk:1 is not loaded at this party")


async def test_refusals_are_one_clear_status(bank: Party, storage: Storage) -> None:
    assert await refused(load(bank, "3")) == (
        Code.PERMISSION_DENIED,
        f'app risk:3 is not allowed here: its digest "{storage.digests["3"]}" is not in apps.allowed',
    )
    code, text = await refused(load(bank, "9"))
    assert (code, text) == (Code.NOT_FOUND, "no app risk:9 in apps.root; there is 1, 2, 3")
    code, text = await refused(load(bank, "1", "rules"))
    assert (code, text) == (Code.FAILED_PRECONDITION, "app 'rules' is built in; give yours another name")
    assert (await refused(load(bank, "")))[0] is Code.INVALID_ARGUMENT
    assert bank.publishing.state().apps == ()
    assert bank.publishing.apps.statuses() == []


async def test_a_load_that_takes_too_long_is_an_answer(storage: Storage, stack: AsyncExitStack) -> None:
    slow = times(2.0) + "\nimport time\ntime.sleep(0.3)\n"
    digest = await asyncio.to_thread(store, storage.root, "1", slow)
    apps = AppSettings(root=str(storage.root), allowed=(digest,))
    bank = await started(stack, storage, load_timeout_s=0.01, apps=apps)
    code, text = await refused(load(bank, "1"))
    assert (code, text) == (
        Code.FAILED_PRECONDITION,
        "app risk:1 did not load within 0.01 s (limits.load_timeout_s)",
    )
    await bank.reconciler.apps.settled()
    assert bank.publishing.apps.statuses() == []


async def test_changes_are_audited(bank: Party, storage: Storage) -> None:
    await load(bank, "1")
    await refused(load(bank, "3"))
    await unload(bank, "1")
    seen = [(one.event, one.what, one.subject, one.state) for one in await asyncio.to_thread(storage.records)]
    assert seen == [
        (Event.ASKED, "LoadApp", "risk:1", None),
        (Event.DONE, "LoadApp", "risk:1", storage.digests["1"]),
        (Event.ASKED, "LoadApp", "risk:3", None),
        (Event.REFUSED, "LoadApp", "risk:3", None),
        (Event.ASKED, "UnloadApp", "risk:1", storage.digests["1"]),
        (Event.DONE, "UnloadApp", "risk:1", None),
    ]


async def test_a_restart_finds_the_apps_again(tmp_path: Path, storage: Storage, stack: AsyncExitStack) -> None:
    control = await asyncio.to_thread(FileControlStore, tmp_path / "state")
    async with AsyncExitStack() as first:
        bank = await started(first, storage, control)
        await load(bank, "1")
        await bank.publishing.load(V1)
        await bank.publishing.online("s", 0, ALL, "risk")
    again = await started(stack, storage, await asyncio.to_thread(FileControlStore, tmp_path / "state"))
    assert bound(again) == "risk:1"
    assert list(model_problems(again.publishing)) == []
    assert [one.life.digest for one in again.publishing.apps.statuses()] == [storage.digests["1"]]


async def test_an_app_that_no_longer_loads_is_reported_and_the_rest_serves(
    tmp_path: Path, storage: Storage, stack: AsyncExitStack
) -> None:
    control = MemoryControlStore()
    async with AsyncExitStack() as first:
        bank = await started(first, storage, control)
        await load(bank, "1")
        await bank.publishing.load(V1)
        await bank.publishing.online("s", 0, ALL, "risk")
        await bank.publishing.online("t", 0, ALL)
    barred = AppSettings(root=str(storage.root), allowed=(storage.digests["2"],))
    again = await started(stack, storage, control, apps=barred)
    [problem] = model_problems(again.publishing)
    assert problem.startswith("app risk:1 does not load: app risk:1 is not allowed here")
    assert list(service_problems(again.publishing)) == [
        "service 's' is not served: app risk:1 is not loaded at this party"
    ]
    with pytest.raises(NotReadyError, match="service 's' cannot be served here: app risk:1 is not loaded"):
        again.publishing.routes.current.target(("s", "", ""), "u1")
    assert again.publishing.routes.current.target(("t", "", ""), "u1").model == V1
    assert set(again.publishing.routes.current.services) == {"s", "t"}
    assert bound(again) == "risk:1"
    await load(again, "2")
    await again.publishing.online("s", 1, ALL, "risk:2")
    assert list(service_problems(again.publishing)) == []
    with pytest.raises(ConflictError, match=r"app risk:1 is not loaded at this party: .*not allowed"):
        await again.publishing.rollback("s", 2)


async def test_replicas_follow_and_a_binding_waits_for_them(storage: Storage, stack: AsyncExitStack) -> None:
    control = MemoryControlStore()
    one = await started(stack, storage, control)
    barred = AppSettings(root=str(storage.root), allowed=(storage.digests["2"],))
    other = await started(stack, storage, control, apps=barred, replica="1")
    reply = await load(one, "2")
    assert [(r.replica, r.state) for r in reply.replicas] == [
        ("0", federation_pb2.LOAD_STATE_LOADED),
        ("1", federation_pb2.LOAD_STATE_LOADED),
    ]
    assert other.publishing.apps.statuses()[0].life.digest == storage.digests["2"]
    reply = await load(one, "1")
    assert reply.replicas[1].state == federation_pb2.LOAD_STATE_FAILED
    assert "not in apps.allowed" in reply.replicas[1].reason
    await one.publishing.load(V1)
    with pytest.raises(ConflictError, match="app risk:1 is not loaded at replica 1 of 'bank'"):
        await one.publishing.online("s", 0, ALL, "risk:1")
    await one.publishing.online("s", 0, ALL, "risk:2")
    assert bound(other) == "risk:2"
