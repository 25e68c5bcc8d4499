"""What a whole node writes into its packets to a host that runs FATE-Serving."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from serving.peers.fate import UNARY_CALL
from serving.transport import Call, Transport, channel, server
from tessera.compat import fate_inference_pb2 as wire
from tessera.compat import fate_inference_pb2_grpc
from tessera.compat import fate_proxy_pb2 as proxy
from tessera.v1 import admin_pb2, admin_pb2_grpc
from tests.assembled import start
from tests.fate_models import GUEST, HOSTS, Recipe, make
from tests.nodes import PartyNode

HOST = HOSTS[0]
MODEL = make(3, Recipe("lr", plain=True))
CASE = {f"g{place}": 0.5 for place in range(5)}
REPLY = {"retcode": 0, "data": {"heterologisticregression_0": {"score": 1.5}}}


async def test_a_host_hears_of_the_service_the_application_and_the_case(tmp_path: Path) -> None:
    heard: list[proxy.AuthInfo] = []

    def answer(raw: bytes, call: Call) -> bytes:
        heard.append(proxy.Packet.FromString(raw).auth)
        return proxy.Packet(body=proxy.Data(value=json.dumps(REPLY).encode())).SerializeToString()

    host = server(Transport.NATIVE)
    host.add_bytes_handler(UNARY_CALL, answer)
    port = host.add_port("127.0.0.1:0")
    await host.start()
    peer = f"[peers.{HOST}]\naddress = '127.0.0.1:{port}'\nprotocol = 'fate'\n[cache]\nembedded = false\n"
    written = await asyncio.to_thread(PartyNode, tmp_path, GUEST, peer)
    site, name = Site("guest", GUEST, (HOST,), Mode.STRICT_OFFLINE), FateName(f"guest#{GUEST}#m", "1")
    await asyncio.to_thread(store_half, written.registry, MODEL.parts[site.name], name, site, GUEST)
    node = await start(written.config)
    operator, caller = (channel(Transport.NATIVE, node.address(one)) for one in ("admin", "service"))
    try:
        admin = admin_pb2_grpc.AdminStub(operator.stub_channel)
        await admin.PublishLoad(admin_pb2.PublishLoadRequest(model="m", version="1"), timeout=10)
        variants = [admin_pb2.VariantWeight(model="m", version="1", weight=10_000)]
        bind = admin_pb2.PublishOnlineRequest(
            service="credit", variants=variants, accept_unmanaged=[HOST], probe_user_id="known"
        )
        await admin.PublishOnline(bind, timeout=10)
        said = {"serviceId": "credit", "applyId": "loan-1", "caseId": "case-1"}
        body = {**said, "featureData": CASE, "sendToRemoteFeatureData": {"id": "u1"}}
        stub = fate_inference_pb2_grpc.InferenceServiceStub(caller.stub_channel)
        reply = await stub.inference(wire.InferenceMessage(body=json.dumps(body).encode()), timeout=10)
        assert json.loads(reply.body)["retcode"] == 0
    finally:
        await asyncio.gather(operator.close(), caller.close())
        await node.stop()
        await host.stop(0)
    probe, asked = heard
    assert (probe.serviceId, probe.applyId) == ("", "")
    assert (asked.serviceId, asked.applyId, asked.nonce, asked.version) == ("credit", "loan-1", "case-1", "216")
