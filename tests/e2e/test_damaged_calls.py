"""Calls that are nearly right, to every door of a node: each gets an answer that says what is wrong with it, or that
answers it. None is this node's own fault, and nothing is logged as one."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from serving.peers.fate import UNARY_CALL
from serving.peers.signing import sign
from serving.transport import Channel, Code, RpcError, Transport, channel
from tessera.compat import fate_common_service_pb2 as operations
from tessera.compat import fate_inference_pb2, fate_proxy_pb2
from tessera.compat import fate_model_service_pb2 as models
from tessera.compat import open_inference_pb2 as oip
from tessera.v1 import admin_pb2, federation_pb2
from tessera.v1 import inference_pb2 as wire
from tests.artifacts import make_onnx, make_words
from tests.damage import spoil, spoiled_bytes, spoiled_json
from tests.e2e.test_fate_partners import CASE, GUEST, HOST, Pair, expected

pytestmark = pytest.mark.usefixtures("transport")

OURS = {Code.INTERNAL, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.DATA_LOSS}
OIP = "/inference.GRPCInferenceService/"
FATE = "/com.webank.ai.fate.api."
ROW = {"featureData": CASE, "sendToRemoteFeatureData": {"device_id": "u0"}}


@pytest.fixture(scope="module")
def pair(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    parties = Pair(tmp_path_factory.mktemp("damaged"))
    guest = parties.guest
    make_onnx(guest.registry, model="local", version="1", party=GUEST, further=True)
    make_words(guest.registry, model="words", version="1", party=GUEST)
    for node in parties.nodes.values():
        node.start()
    try:
        for node in parties.nodes.values():
            node.load("m", "lr")
            node.load("back", "lr")
        for model in ("local", "words"):
            guest.load(model, "1")
        parties.accept("lr", "m", "lr", guest)
        yield parties
    finally:
        for node in parties.nodes.values():
            node.stop()


@dataclass
class Doors:
    """Of the guest. `codes`: what calls were answered with, by FATE's codes too; `ours`: answers that say that this
    node is at fault."""

    ports: dict[str, Channel]
    http: httpx.AsyncClient
    codes: set[object] = field(default_factory=set)
    ours: list[tuple[str, object, bytes]] = field(default_factory=list)

    async def rpc(self, port: str, method: str, raw: bytes, read: Callable[[bytes], Any] = lambda raw: "") -> None:
        """`read`: a reply as what it says: JSON or a message."""
        try:
            said = read(await self.ports[port].unary(method, raw, 10))
        except RpcError as error:
            self._note(method, error.code, error.details, raw)
        else:
            self._note(method, Code.OK, said, raw)

    async def post(self, path: str, raw: bytes) -> None:
        answer = await self.http.post(path, content=raw)
        self._note(path, answer.status_code, answer.text, raw)

    def _note(self, what: str, code: Any, said: Any, raw: bytes) -> None:
        text = str(said)
        self.codes.add(code)
        self.codes.update(said.get("retcode", 0) for said in [said] if isinstance(said, dict))
        if code in OURS or code == 500 or "request id" in text:
            self.ours.append((what, text, raw))


@asynccontextmanager
async def opened(addresses: dict[str, str]) -> AsyncIterator[Doors]:
    ports = {name: channel(Transport.NATIVE, addresses[name]) for name in ("service", "party", "admin")}
    async with httpx.AsyncClient(base_url=f"http://{addresses['http']}", trust_env=False, timeout=10) as http:
        try:
            yield Doors(ports, http)
        finally:
            for link in ports.values():
                await link.close()


def damaged(source: random.Random, message: Any) -> bytes:
    for _ in range(source.randint(1, 4)):
        spoil(source, message)
    raw: bytes = message.SerializeToString()
    return spoiled_bytes(source, raw) if source.random() < 0.15 else raw


async def open_inference(doors: Doors, source: random.Random) -> None:
    typed = oip.ModelInferRequest(model_name=source.choice(["lr", "words"]), id="r", outputs=[{"name": "score"}])
    typed.inputs.add(name="user_id", datatype="BYTES", shape=[2, 1]).contents.bytes_contents.extend([b"u0", b"u1"])
    for name, value in CASE.items():
        typed.inputs.add(name=name, datatype="FP64", shape=[2, 1]).contents.fp64_contents.extend([value] * 2)
    typed.parameters["timeout"].int64_param = 10**6
    raw = oip.ModelInferRequest(model_name="local", raw_input_contents=[np.zeros((2, 2), "<f4").tobytes()])
    raw.inputs.add(name="x", datatype="FP32", shape=[2, 2])
    for message in (typed, raw):
        await doors.rpc("service", f"{OIP}ModelInfer", damaged(source, message))
    for name in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        await doors.rpc("service", OIP + name, damaged(source, getattr(oip, f"{name}Request")(name="lr")))
    await doors.rpc("service", f"{OIP}RepositoryIndex", damaged(source, oip.RepositoryIndexRequest()))


async def model_control(doors: Doors, source: random.Random) -> None:
    for name, message in (
        ("RepositoryModelLoad", oip.RepositoryModelLoadRequest(model_name="none")),
        ("RepositoryModelUnload", oip.RepositoryModelUnloadRequest(model_name="none")),
        ("LogSettings", oip.LogSettingsRequest()),
    ):
        await doors.rpc("admin", OIP + name, damaged(source, message))


async def http(doors: Doors, source: random.Random) -> None:
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in CASE.items()]
    inputs.append({"name": "user_id", "shape": [1, 1], "datatype": "BYTES", "data": ["u0"]})
    outputs = [{"name": "score", "parameters": {"binary_data": True}}]
    infer = {"id": "r", "parameters": {"case_id": "c"}, "inputs": inputs, "outputs": outputs}
    predict = {"service": "lr", "user_id": "u0", "features": CASE, "parameters": {"a": "b"}, "case_id": "c"}
    columns = {name: [value] for name, value in CASE.items()}
    for path, document in (
        ("/v2/models/lr/infer", infer),
        ("/v2/repository/index", {"ready": True}),
        ("/v1/predict", predict),
        ("/v1/batch-predict", {"service": "lr", "user_ids": ["u0"], "columns": columns}),
        ("/federation/1/inference", {"head": {"serviceId": "lr"}, "body": ROW}),
        ("/federation/1/batchInference", {"head": {"serviceId": "lr"}, "body": {"batchDataList": [{"index": 0}]}}),
    ):
        await doors.post(path, spoiled_json(source, document))


async def tessera(doors: Doors, source: random.Random) -> None:
    columns = {name: wire.NumberColumn(values=[value] * 2) for name, value in CASE.items()}
    for name, message in (
        ("Predict", wire.PredictRequest(service="lr", user_id="u0", numbers=CASE)),
        ("BatchPredict", wire.BatchPredictRequest(service="lr", user_ids=["u0", "u1"], numbers=columns)),
    ):
        await doors.rpc("service", f"/tessera.v1.Inference/{name}", damaged(source, message))


async def fate(doors: Doors, source: random.Random) -> None:
    single = {"serviceId": "lr", "caseId": "", "appid": GUEST, "modelId": "", "modelVersion": "", **ROW}
    batch = {"serviceId": "lr", "caseId": "b", "batchDataList": [{"index": index, **ROW} for index in range(2)]}
    for method, document in (
        ("inference", single),
        ("batchInference", batch),
        ("startInferenceJob", single),
        ("getInferenceResult", {"caseid": "b", "appid": GUEST}),
    ):
        message = fate_inference_pb2.InferenceMessage(body=spoiled_json(source, document))
        await doors.rpc(
            "service",
            f"{FATE}serving.InferenceService/{method}",
            message.SerializeToString(),
            lambda raw: json.loads(fate_inference_pb2.InferenceMessage.FromString(raw).body),
        )


async def partners(doors: Doors, source: random.Random) -> None:
    """Signed anew after the damage: else nothing but that would be seen."""
    user = {"id": "u0"}
    first_line = {"partnerModelInfo": {"name": "lr", "namespace": f"guest#{HOST}#back"}, "featureIdMap": user}
    for command, document in (
        ("federatedInference", {"sendToRemoteFeatureData": user, "featureData": {}}),
        ("batch", {"batchDataList": [{"index": 0, "sendToRemoteFeatureData": user}]}),
        ("federatedInference4Tree", first_line),
    ):
        packet = fate_proxy_pb2.Packet()
        header = packet.header
        header.task.model.namespace, header.task.model.tableName = f"host#{GUEST}#back", "lr"
        header.src.partyId, header.dst.partyId, header.command.name = HOST, GUEST, command
        header.operator = source.choice(["216", "", "103", "x"])
        packet.body.value = spoiled_json(source, document)
        if source.random() < 0.4:
            spoil(source, packet)
        sign(packet, f"key-{HOST}", b"shared", time.time())
        await doors.rpc(
            "party",
            UNARY_CALL,
            packet.SerializeToString(),
            lambda raw: json.loads(fate_proxy_pb2.Packet.FromString(raw).body.value),
        )


async def fate_admin(doors: Doors, source: random.Random) -> None:
    publication = models.PublishRequest(local=models.LocalInfo(role="guest", partyId=GUEST), serviceId="never")
    publication.role["guest"].partyId.append(GUEST)
    publication.role["host"].partyId.append(HOST)
    half = publication.model["guest"].roleModelInfo[GUEST]
    half.tableName, half.namespace = "none", f"guest#{GUEST}#none"
    publication.loadType = source.choice(["FILE", "CACHE", "FATEFLOW"])
    named = {"tableName": "none", "namespace": "none"}
    for method, message, reply in (
        *((name, publication, models.PublishResponse) for name in ("publishLoad", "publishBind", "publishOnline")),
        ("unload", models.UnloadRequest(**named), models.UnloadResponse),
        ("unbind", models.UnbindRequest(serviceIds=["none"], **named), models.UnbindResponse),
        ("fetchModel", models.FetchModelRequest(**named), models.FetchModelResponse),
        ("modelTransfer", models.ModelTransferRequest(**named), models.ModelTransferResponse),
        ("queryModel", models.QueryModelRequest(), models.QueryModelResponse),
    ):
        raw = damaged(source, message)
        await doors.rpc("admin", f"{FATE}mlmodel.manager.ModelService/{method}", raw, reply.FromString)
    for method, message in (
        ("queryMetrics", operations.QueryMetricRequest(endMs=1 << 60)),
        ("updateFlowRule", operations.UpdateFlowRuleRequest(source="I_none", allowQps=1)),
        ("listProps", operations.QueryPropsRequest()),
        ("checkHealthService", operations.HealthCheckRequest()),
    ):
        raw = damaged(source, message)
        await doors.rpc(
            "admin", f"{FATE}networking.common.CommonService/{method}", raw, operations.CommonResponse.FromString
        )


async def tessera_control(doors: Doors, source: random.Random) -> None:
    """Every method of the party port and of the admin port, about names that there are and that there are not."""
    for file, service, port in ((federation_pb2, "Federation", "party"), (admin_pb2, "Admin", "admin")):
        for method in file.DESCRIPTOR.services_by_name[service].methods:
            request = getattr(file, method.input_type.name)()
            names = {"model": ("local", "none"), "version": ("1", "lr"), "service": ("never", "none")}
            for name in names.keys() & method.input_type.fields_by_name.keys():
                setattr(request, name, source.choice(names[name]))
            if not (method.client_streaming or method.server_streaming):
                await doors.rpc(port, f"/tessera.v1.{service}/{method.name}", damaged(source, request))


CALLS = (open_inference, model_control, http, tessera, fate, partners, fate_admin, tessera_control)


def check(pair: Pair, calls: Callable[[Doors, random.Random], Any], seeds: range) -> None:
    addresses = {name: pair.guest.address(name) for name in ("service", "party", "admin", "http")}

    async def run() -> Doors:
        async with opened(addresses) as doors:
            for seed in seeds:
                await calls(doors, random.Random(seed))
        return doors

    doors = asyncio.run(run())
    assert not doors.ours
    assert len(doors.codes) > 1, doors.codes
    for node in pair.nodes.values():
        assert "Traceback" not in node.log
    assert pair.case("lr", "u1")["data"]["score"] == pytest.approx(expected("lr", "u1"), abs=1e-12)


@pytest.mark.parametrize("calls", CALLS, ids=[one.__name__ for one in CALLS])
def test_a_damaged_call_is_answered_as_one(pair: Pair, calls: Callable[[Doors, random.Random], Any]) -> None:
    check(pair, calls, range(40))


@pytest.mark.soak
@pytest.mark.parametrize("calls", CALLS, ids=[one.__name__ for one in CALLS])
def test_many_damaged_calls_are_answered_as_such(pair: Pair, calls: Callable[[Doors, random.Random], Any]) -> None:
    check(pair, calls, range(40, 1_500))
