"""What a replica tells of the others: in the list of models, and in the detail of /readyz."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from serving.control import MemoryControlStore
from serving.pool import ModelId
from serving.readiness import publishing_problems, report
from serving.reports import ReplicaModel, ReplicaReport
from tessera.v1 import admin_pb2 as wire
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import Party, running

V1 = ModelId("m", "1")
REPLICAS = ("one", "other")


async def listed(party: Party) -> dict[str, wire.ModelStatus]:
    reply = await party.admin.ListModels(wire.ListModelsRequest())
    return {f"{one.model}/{one.version}": one for one in reply.models}


def states(status: wire.ModelStatus) -> list[tuple[str, str]]:
    return [(one.replica, one.state) for one in status.replicas]


async def test_what_other_replicas_have_and_lack_is_told_until_they_stop(tmp_path: Path) -> None:
    store, roots = MemoryControlStore(), {name: tmp_path / name for name in REPLICAS}
    digest = await asyncio.to_thread(publish, {"bank": roots["one"]}, V1)
    await asyncio.to_thread(shutil.copytree, roots["one"], roots["other"])
    await asyncio.to_thread(next(roots["other"].glob("m/1/*/weights.npy")).write_bytes, b"rubbish")
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running("bank", roots["one"], store, replica="one"))
        async with running("bank", roots["other"], store, replica="other"):
            while len(await asyncio.to_thread(store.reports)) < 2:
                await asyncio.sleep(0)
            await one.publishing.load(V1)
            status = (await listed(one))["m/1"]
            assert status.state == "READY"
            assert states(status) == [("one", "READY"), ("other", "FAILED")]
            assert "corrupt" in status.replicas[1].reason
            assert status.replicas[0].binding_digest.hex() == digest
            [problem] = publishing_problems(one.publishing)
            assert problem.startswith("model m/1 does not load at replica other: m/1/guest-bank/weights.npy is corrupt")
            detail = report(True, "ready", (), one.publishing.heard()).replicas
            assert [(said.replica, said.models) for said in detail] == [
                ("one", {"m/1": "READY"}),
                ("other", {"m/1": "FAILED"}),
            ]
            assert {said.revision for said in detail} == {1}
        while len(one.publishing.heard()) > 1:
            await asyncio.sleep(0)
        assert states((await listed(one))["m/1"]) == [("one", "READY")]
        assert not list(publishing_problems(one.publishing))


async def test_a_version_that_only_another_replica_knows_is_listed(tmp_path: Path) -> None:
    store = MemoryControlStore()
    stranger = ReplicaReport(replica="other", revision=0, models={"m/2": ReplicaModel("LOADING")})
    async with running("bank", tmp_path, store) as party:
        store.report(stranger)
        while len(party.publishing.heard()) < 2:
            await asyncio.sleep(0)
        status = (await listed(party))["m/2"]
        assert (status.state, status.since_ms, states(status)) == ("NEW", 0, [("other", "LOADING")])


async def test_readiness_is_json_with_the_age_of_what_others_said() -> None:
    said = ReplicaReport(replica="b/1", generation="2", revision=3, age_s=1.23456, apps={"a:1": ReplicaModel("READY")})
    assert msgspec.json.decode(msgspec.json.encode(report(True, "ready", (), [said])))["replicas"] == [
        {"replica": "b/1", "generation": "2", "revision": 3, "age_s": 1.235, "models": {}, "apps": {"a:1": "READY"}}
    ]
