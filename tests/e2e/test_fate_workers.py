"""Nodes of several workers: what these know together of packets, and of jobs."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from serving.peers.fate import UNARY_CALL
from serving.peers.signing import sign
from serving.transport import Channel, RpcError
from tessera.compat import fate_inference_pb2, fate_inference_pb2_grpc, fate_model_service_pb2_grpc
from tessera.compat import fate_model_service_pb2 as models
from tessera.compat import fate_proxy_pb2 as proxy
from tests.fate_models import GUEST, HOSTS, Recipe, make
from tests.nodes import PartyNode, worker_pids

pytestmark = pytest.mark.usefixtures("untraced")

HOST = HOSTS[0]
LR = make(3, Recipe("lr", plain=True))


def test_a_signed_packet_counts_once_at_all_workers(tmp_path: Path) -> None:
    settings = (
        f"workers = 2\nplaintext_caller = '{GUEST}'\n[peers.{GUEST}]\n[features.default]\npath = 'users.csv'\n"
        f"[fate.keys.key]\nparty = '{GUEST}'\nsecret_file = 'secret'\n"
    )
    host = PartyNode(tmp_path, HOST, settings)
    (host.folder / "secret").write_text("shared")
    (host.folder / "users.csv").write_text("id,h00,h01,h02,h03,h04\nu1,1,2,3,4,5\n")
    name = FateName(f"host#{HOST}#m", "lr")
    store_half(host.registry, LR.parts[f"host:{HOST}"], name, Site("host", HOST, (HOST,), Mode.STRICT_OFFLINE), GUEST)
    packet = proxy.Packet(
        header=proxy.Metadata(
            task=proxy.Task(model=proxy.Model(namespace=name.namespace, tableName=name.table)),
            src=proxy.Topic(partyId=GUEST),
            dst=proxy.Topic(partyId=HOST),
            command=proxy.Command(name="federatedInference"),
            operator="216",
        ),
        body=proxy.Data(value=b'{"sendToRemoteFeatureData":{"id":"u1"}}'),
    )

    async def ask(link: Channel) -> Any:
        reply = await link.unary(UNARY_CALL, packet.SerializeToString(), 10.0)
        return json.loads(proxy.Packet.FromString(reply).body.value)["retcode"]

    host.start()
    try:
        host.load("m", "lr")
        sign(packet, "key", b"shared", time.time())
        assert sorted(host.call("party", ask) for _ in range(12)) == [0, *[629] * 11]
    finally:
        host.stop()


@pytest.mark.parametrize("cache", ["", pytest.param("[cache]\nembedded = false\n", marks=pytest.mark.soak)])
def test_a_job_whose_worker_is_killed_is_said_to_have_ended_with_it(tmp_path: Path, cache: str) -> None:
    """Its host takes connections and says nothing, so that the job has not ended before."""
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    settings = f"workers = 2\n[peers.{HOST}]\naddress = '{address}'\n[limits]\npeer_timeout_s = 1.5\n{cache}"
    guest = PartyNode(tmp_path, GUEST, settings)
    name = FateName(f"guest#{GUEST}#m", "lr")
    site = Site("guest", GUEST, (HOST,), Mode.STRICT_OFFLINE)
    store_half(guest.registry, LR.parts[f"guest:{GUEST}"], name, site, GUEST)

    def asked(method: str, **body: object) -> Any:
        message = fate_inference_pb2.InferenceMessage(body=json.dumps({"appid": GUEST, **body}).encode())

        async def ask(link: Channel) -> Any:
            stub = fate_inference_pb2_grpc.InferenceServiceStub(link.stub_channel)
            return await getattr(stub, method)(message, timeout=10)

        return json.loads(guest.call("service", ask).body)

    async def load(link: Channel) -> models.PublishResponse:
        local = models.LocalInfo(role="guest", partyId=GUEST)
        request = models.PublishRequest(local=local, tableName=name.table, namespace=name.namespace)
        request.role["guest"].partyId.append(GUEST)
        request.role["host"].partyId.append(HOST)
        return await fate_model_service_pb2_grpc.ModelServiceStub(link.stub_channel).publishLoad(request, timeout=10)

    guest.start()
    try:
        assert guest.call("admin", load).statusCode == 0
        case = {"featureData": {f"g{n}": 0.5 for n in range(5)}, "sendToRemoteFeatureData": {"id": "u1"}}
        named = {"modelId": name.namespace, "modelVersion": name.table}
        begun = asked("startInferenceJob", **named, **case)
        assert begun["retcode"] == 0
        assert asked("getInferenceResult", caseid=begun["caseid"])["retcode"] == 109
        for pid in worker_pids(guest):
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while (result := polled(asked, begun["caseid"]))["retcode"] == 109:
            assert time.monotonic() < end, result
            time.sleep(0.05)
        assert (result["retcode"], "ended with the worker" in result["retmsg"]) == (1110, True), result
    finally:
        guest.stop()
        silent.close()


def polled(asked: Any, case: str) -> Any:
    """109 as well while no worker is there, and so no address."""
    try:
        return asked("getInferenceResult", caseid=case)
    except (RpcError, KeyError):
        return {"retcode": 109}
