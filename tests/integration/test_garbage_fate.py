"""A guest asks a host over FATE-Serving's protocol: neither leaves cycles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from serving.transport import Transport, channel
from tessera.compat import fate_inference_pb2 as wire
from tessera.compat import fate_inference_pb2_grpc
from tessera.v1 import admin_pb2, admin_pb2_grpc
from tests.assembled import Live, start
from tests.fate_models import GUEST, HOSTS, Recipe, make
from tests.leavings import FEW, leavings
from tests.nodes import free_port

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("thawed")]

HOST = HOSTS[0]
NAMES = [f"h0{place}" for place in range(5)]
CASE = {f"g{place}": 0.25 * place for place in range(5)}
USERS = 200


def _write(folder: Path, party: str, peer: str, ports: dict[str, int]) -> Path:
    folder.mkdir()
    rows = [",".join([f"u{number}", *["0.5"] * len(NAMES)]) for number in range(USERS)]
    (folder / "users.csv").write_text("\n".join([",".join(["id", *NAMES]), *rows]) + "\n")
    (folder / "serving.toml").write_text(
        f"party = '{party}'\nstate_dir = 'state'\nregistry = 'registry'\nplaintext_caller = '{peer}'\n"
        f"[peers.{peer}]\naddress = '127.0.0.1:{ports[peer]}'\nprotocol = 'fate'\n"
        "[features.default]\npath = 'users.csv'\n[fate]\nuser_id = 'device_id'\n"
        f"[ports]\nservice = '127.0.0.1:0'\nparty = '127.0.0.1:{ports[party]}'\nadmin = '127.0.0.1:0'\n"
        "http = '127.0.0.1:0'\n"
    )
    role = "guest" if party == GUEST else "host"
    site = Site(role, party, (HOST,), Mode.STRICT_OFFLINE)
    parts = make(3, Recipe("lr", plain=True)).parts[site.name]
    store_half(folder / "registry", parts, FateName(f"{role}#{party}#m", "1"), site, GUEST)
    return folder / "serving.toml"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    folder, ports = tmp_path_factory.mktemp("fate"), {GUEST: free_port(), HOST: free_port()}
    async with AsyncExitStack() as stack:
        for party, peer in ((HOST, GUEST), (GUEST, HOST)):
            live = await start(await asyncio.to_thread(_write, folder / party, party, peer, ports))
            stack.push_async_callback(live.stop)
            link = channel(Transport.NATIVE, live.address("admin"))
            stub = admin_pb2_grpc.AdminStub(link.stub_channel)
            await stub.PublishLoad(admin_pb2.PublishLoadRequest(model="m", version="1"), timeout=20)
            if party == GUEST:
                await stub.PublishOnline(
                    admin_pb2.PublishOnlineRequest(
                        service="s",
                        variants=[admin_pb2.VariantWeight(model="m", version="1", weight=10_000)],
                        accept_unmanaged=[HOST],
                        probe_user_id="u0",
                    ),
                    timeout=20,
                )
            await link.close()
        yield live


async def test_calls_over_unary_call_leave_nothing(guest: Live) -> None:
    link = channel(Transport.NATIVE, guest.address("service"))
    stub = fate_inference_pb2_grpc.InferenceServiceStub(link.stub_channel)

    async def retcode(method: str, **body: object) -> int:
        message = wire.InferenceMessage(body=json.dumps({"serviceId": "s", **body}).encode())
        return json.loads((await getattr(stub, method)(message, timeout=5)).body)["retcode"]

    def row(user_id: str) -> dict[str, object]:
        return {"featureData": CASE, "sendToRemoteFeatureData": {"device_id": user_id}}

    async def call(number: int) -> None:
        assert await retcode("inference", **row(f"u{number}")) == 0
        assert await retcode("inference", **row(f"x{number}")) == 2113
        rows = [{"index": place, **row(f"u{100 + 3 * number + place}")} for place in range(3)]
        assert await retcode("batchInference", batchDataList=rows) == 0

    left = await leavings(call)
    assert left.total() < FEW, left.most_common()
    await link.close()
