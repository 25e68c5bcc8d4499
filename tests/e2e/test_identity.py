"""Two parties over mutual TLS, with principals: who may what, on both transports, by gRPC, HTTP and commands."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.certificates import make_authority, make_certificate
from serving.transport import Channel, ChannelCredentials, ChannelOptions, Code, RpcError, Transport, channel
from tessera.compat import open_inference_pb2 as oip
from tessera.compat import open_inference_pb2_grpc
from tessera.v1 import admin_pb2 as admin
from tessera.v1 import federation_pb2 as federation
from tessera.v1 import federation_pb2_grpc, inference_pb2_grpc
from tessera.v1 import inference_pb2 as wire
from tests.artifacts import make_bound_pair
from tests.nodes import ROOT, PartyNode, free_port

TOKENS = {"ann": "operator", "vic": "viewer", "app": "caller"}
"""Role by principal; the token is the name and more."""


def token(name: str) -> str:
    return f"{name}-0123456789abcdef0123456789abcdef"


def tls(certificates: Path, party: str) -> str:
    files = f"certificate = '{certificates / party}.pem'\nkey = '{certificates / party}.key'\n"
    return f"[tls.default]\n{files}authority = '{certificates / 'ca.pem'}'\n"


def principals() -> str:
    return "".join(
        f"[principals.{name}]\nrole = '{role}'\ntoken_sha256 = '{hashlib.sha256(token(name).encode()).hexdigest()}'\n"
        for name, role in TOKENS.items()
    )


class SecureParties:
    def __init__(self, folder: Path, transport: Transport) -> None:
        self.certificates = folder / "certificates"
        make_authority(self.certificates, "test")
        for party in ("bank", "shop", "mallory"):
            make_certificate(self.certificates, party, ["127.0.0.1", "localhost"])
        self.port = free_port()
        top = f"transport = '{transport.value}'\n"
        peer = f"[peers.shop]\naddress = '127.0.0.1:{self.port}'\n"
        limited = "[limits.callers.app]\nper_s = 0.001\nburst = 1\n"
        self.guest = PartyNode(
            folder,
            "bank",
            f"{top}anonymous_callers = false\n{tls(self.certificates, 'bank')}{principals()}{peer}{limited}",
        )
        features = "[features.default]\npath = 'users.csv'\n[peers.bank]\nmay_load = ['*']\n"
        self.host = PartyNode(folder, "shop", f"{top}{tls(self.certificates, 'shop')}{features}", self.port)
        (self.host.folder / "users.csv").write_text("id,x\n0001,1.0\n")
        for node in (self.guest, self.host):
            node.credentials = ChannelCredentials(self.certificates / "ca.pem")
        make_bound_pair(
            self.guest.registry,
            self.host.registry,
            model="m",
            version="1",
            guest="bank",
            host="shop",
            guest_weights={"a": 1.0},
            host_weights={"x": 1.0},
            intercept=0.0,
        )

    def start(self) -> None:
        self.host.start()
        self.guest.start()

    def stop(self) -> None:
        self.guest.stop()
        self.host.stop()


@pytest.fixture(scope="module", params=Transport, ids=lambda kind: kind.value)
def parties(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureParties]:
    made = SecureParties(tmp_path_factory.mktemp("secure"), request.param)
    try:
        made.start()
        made.guest.token = token("ann")
        made.guest.load("m", "1")
        made.guest.online("s", "m", "1")
        yield made
    finally:
        made.stop()


def refusal(ask, *arguments, **named) -> RpcError:  # type: ignore[no-untyped-def]
    with pytest.raises(RpcError) as caught:
        ask(*arguments, **named)
    return caught.value


def test_an_answer_through_mutual_tls(parties: SecureParties) -> None:
    parties.guest.token = token("ann")
    reply = parties.guest.predict(service="s", user_id="0001", numbers={"a": -1.0})
    assert reply.complete
    assert list(reply.score) == [0.5]


def test_callers_say_who_they_are(parties: SecureParties) -> None:
    for wrong in ("", "guess"):
        parties.guest.token = wrong
        assert refusal(parties.guest.predict, service="s", user_id="0001").code is Code.UNAUTHENTICATED


def test_a_caller_has_the_limits_of_its_name(parties: SecureParties) -> None:
    parties.guest.token = token("app")
    parties.guest.predict(service="s", user_id="0001", numbers={"a": 2.0})
    refused = refusal(parties.guest.predict, service="s", user_id="0001", numbers={"a": 3.0})
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert "caller 'app'" in refused.details


@pytest.mark.parametrize(
    ("name", "reads", "changes"), [("app", False, False), ("vic", True, False), ("ann", True, True)]
)
def test_roles_on_the_admin_port(parties: SecureParties, name: str, reads: bool, changes: bool) -> None:
    parties.guest.token, service = token(name), admin.LIMIT_KIND_SERVICE
    for allowed, method, request in (
        (reads, "ListModels", admin.ListModelsRequest()),
        (reads, "ListServices", admin.ListServicesRequest()),
        (reads, "ListLimits", admin.ListLimitsRequest()),
        (changes, "SetLimit", admin.SetLimitRequest(kind=service, name="t", limit=admin.Limit(per_s=5))),
        (changes, "ClearLimit", admin.ClearLimitRequest(kind=service, name="t")),
        (changes, "PublishLoad", admin.PublishLoadRequest(model="m", version="1")),
        (changes, "SetDefaultService", admin.SetDefaultServiceRequest(service="s")),
    ):
        if allowed:
            parties.guest.admin(method, request)
        else:
            assert refusal(parties.guest.admin, method, request).code is Code.PERMISSION_DENIED
    parties.guest.token = ""
    assert refusal(parties.guest.admin, "ListModels", admin.ListModelsRequest()).code is Code.UNAUTHENTICATED


def over_oip(node: PartyNode, port: str, method: str, request: object) -> Code:
    async def ask(link: Channel) -> object:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        return await getattr(stub, method)(request, timeout=5, metadata=node.metadata)

    try:
        node.call(port, ask)
    except RpcError as error:
        return error.code
    return Code.OK


@pytest.mark.parametrize("port", ["service", "admin"])
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("RepositoryModelLoad", oip.RepositoryModelLoadRequest(model_name="m")),
        ("RepositoryModelUnload", oip.RepositoryModelUnloadRequest(model_name="m")),
        ("LogSettings", oip.LogSettingsRequest()),
        ("TraceSetting", oip.TraceSettingRequest()),
    ],
)
def test_model_control_over_oip_is_for_operators_on_every_port(
    parties: SecureParties, port: str, method: str, request_: object
) -> None:
    wanted = {"": Code.UNAUTHENTICATED, token("app"): Code.PERMISSION_DENIED, token("vic"): Code.PERMISSION_DENIED}
    for given, code in wanted.items():
        parties.guest.token = given
        assert over_oip(parties.guest, port, method, request_) is code
    parties.guest.token = token("ann")
    passed = {"RepositoryModelUnload": Code.FAILED_PRECONDITION}
    assert over_oip(parties.guest, port, method, request_) is passed.get(method, Code.OK)
    if method.startswith("Repository"):
        lines = (parties.guest.folder / "state" / "audit.log").read_text().splitlines()
        asked, end = map(json.loads, lines[-2:])
        assert (asked["what"], asked["event"], asked["state"]) == (method, "asked", {"1": "READY"})
        assert (end["what"], end.get("state")) == (method, {"1": "READY"} if end["event"] == "done" else None)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ModelReady", oip.ModelReadyRequest(name="s")),
        ("ModelMetadata", oip.ModelMetadataRequest(name="s")),
        ("ModelConfig", oip.ModelConfigRequest(name="s")),
        ("ModelStatistics", oip.ModelStatisticsRequest(name="s")),
        ("RepositoryIndex", oip.RepositoryIndexRequest()),
    ],
)
def test_models_are_not_described_to_nobody_in_particular(
    parties: SecureParties, method: str, request_: object
) -> None:
    for given, code in (("", Code.UNAUTHENTICATED), (token("app"), Code.OK)):
        parties.guest.token = given
        assert over_oip(parties.guest, "service", method, request_) is code


def test_a_stream_of_nobody_in_particular_is_refused_and_counted(parties: SecureParties) -> None:
    async def ask(link: Channel) -> str:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        call = stub.ModelStreamInfer(iter([oip.ModelInferRequest(model_name="s")]), metadata=parties.guest.metadata)
        return await anext(one.error_message async for one in call)

    parties.guest.token = ""
    assert refusal(parties.guest.call, "service", ask).code is Code.UNAUTHENTICATED
    parties.guest.token = token("vic")
    assert "there are no inputs" in parties.guest.call("service", ask)
    assert "Traceback" not in parties.guest.log
    with httpx.Client(
        base_url=f"https://{parties.guest.address('http')}",
        verify=ssl.create_default_context(cafile=parties.certificates / "ca.pem"),
    ) as client:
        lines = [one for one in client.get("/metrics").text.splitlines() if "ModelStreamInfer" in one]
    for code in (Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT):
        assert any(code.name in one and float(one.split()[-1]) >= 1 for one in lines), lines


def test_changes_are_audited_by_name(parties: SecureParties) -> None:
    parties.guest.token = token("ann")
    parties.guest.admin("SetDefaultService", admin.SetDefaultServiceRequest(service="s"))
    assert '"who":"ann"' in (parties.guest.folder / "state" / "audit.log").read_text().splitlines()[-1]


def test_only_a_party_with_its_certificate_reaches_the_party_port(parties: SecureParties) -> None:
    async def status(credentials: ChannelCredentials | None) -> str:
        link = channel(Transport.NATIVE, f"127.0.0.1:{parties.port}", ChannelOptions(credentials=credentials))
        try:
            stub = federation_pb2_grpc.FederationStub(link.stub_channel)
            caller: str = (await stub.Status(federation.StatusRequest(), timeout=5)).caller
            return caller
        finally:
            await link.close()

    def credentials(party: str) -> ChannelCredentials:
        folder = parties.certificates
        return ChannelCredentials(folder / "ca.pem", folder / f"{party}.pem", folder / f"{party}.key", "shop")

    assert asyncio.run(status(credentials("bank"))) == "bank"
    mallory = credentials("mallory")
    assert refusal(lambda: asyncio.run(status(mallory))).code is Code.PERMISSION_DENIED
    nobody = ChannelCredentials(parties.certificates / "ca.pem", server_name="shop")
    for refused in (nobody, None):
        code = refusal(lambda given=refused: asyncio.run(status(given))).code
        assert code in {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


def test_the_http_port(parties: SecureParties) -> None:
    address = parties.guest.address("http")
    authorised = {"authorization": f"Bearer {token('ann')}"}
    body = {"service": "s", "user_id": "0001", "features": {"a": -1.0}}
    with httpx.Client(
        base_url=f"https://{address}", verify=ssl.create_default_context(cafile=parties.certificates / "ca.pem")
    ) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/predict", json=body).status_code == 401
        assert client.post("/v1/predict", json=body, headers=authorised).json()["score"] == [0.5]
        for path in ("/v1/predict", "/v2/models/s/infer"):  # nobody's body is looked at
            assert client.post(path, content=b"{").status_code == 401
            assert client.post(path, content=b"{", headers=authorised).status_code == 400
        assert client.post("/federation/v1/inference", content=b"{").json()["retcode"] == 127
        for path in ("/v2/logging", "/v2/trace/setting", "/v2/models/s/trace/setting"):
            assert (client.get(path).status_code, client.post(path).status_code) == (401, 401)
            viewer = {"authorization": f"Bearer {token('vic')}"}
            assert {client.get(path, headers=viewer).status_code, client.post(path, headers=viewer).status_code} == {
                403
            }
            assert client.post(path, headers=authorised).status_code == 200
        assert client.get("/v2/trace/setting", headers=authorised).json()["trace_level"] == ["OFF"]
        for body, status in (({"trace_rate": "1"}, 400), ({"trace_mode": "opentelemetry"}, 200), ({"x": ["1"]}, 400)):
            assert client.post("/v2/trace/setting", json=body, headers=authorised).status_code == status
        for body, status in (({"log_verbose_level": 1}, 200), ({"log_verbose_level": -1}, 400), ([], 400)):
            assert client.post("/v2/logging", json=body, headers=authorised).status_code == status
        assert client.get("/v2/logging", headers=authorised).json()["log_verbose_level"] == 1
        assert client.post("/v2/logging", json={"log_verbose_level": 0}, headers=authorised).json()["log_info"] is True
        assert client.get("/v2/systemsharedmemory/status").status_code == 401
        assert client.get("/console").status_code == 200
        for name, status in (("", 401), ("app", 403), ("vic", 200), ("ann", 200)):
            given = {"authorization": f"Bearer {token(name)}"} if name else {}
            assert client.get("/console/data", headers=given).status_code == status
        data = client.get("/console/data", headers=authorised).text
        assert not any(hashlib.sha256(token(name).encode()).hexdigest() in data for name in TOKENS)
        load = "/v2/repository/models/m/load"
        assert client.post(load).status_code == 401
        assert client.post(load, headers={"authorization": f"Bearer {token('vic')}"}).status_code == 403
        assert client.post(load, headers=authorised).status_code == 200
        for parameters, status, text in (
            ({"version": 1}, 200, ""),
            ({"version": "1"}, 200, ""),
            ({"version": 2}, 404, "failed to load 'm'"),
            ({"version": True}, 400, "is a text or a whole number"),
            ({"config": "{}"}, 400, "'config' is refused"),
            ({"file:1/model.onnx": "eA=="}, 400, "'file:1/model.onnx' is refused"),
        ):
            answer = client.post(load, json={"parameters": parameters}, headers=authorised)
            assert (answer.status_code, text in answer.text) == (status, True), answer.text
        refused = client.post("/v2/repository/models/s/unload", headers=authorised)
        assert (refused.status_code, "it is a service" in refused.text) == (400, True)
    with httpx.Client(base_url=f"http://{address}") as plain, pytest.raises(httpx.HTTPError):
        plain.get("/readyz")


def tessera(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "serving", *arguments]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto", **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables, check=False, timeout=60)


def test_commands(parties: SecureParties) -> None:
    authority = ("--authority", str(parties.certificates / "ca.pem"))
    target = ("--admin", parties.guest.address("admin"))
    listed = tessera("model", "list", *target, *authority, TESSERA_CLIENT_TOKEN=token("vic"))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "READY" in listed.stdout
    assert "TESSERA_CLIENT_TOKEN" in tessera("model", "list", *target, *authority).stderr
    plain = tessera("model", "list", *target)
    assert plain.returncode == 1
    assert "no node answers" not in plain.stderr
    asked = tessera("doctor", "--config", str(parties.guest.config), "--json")
    assert asked.returncode == 0, asked.stdout


def test_a_host_with_another_name_is_not_believed(parties: SecureParties, tmp_path: Path) -> None:
    """A guest that calls `shop` and reaches another party's node of the same authority."""
    peer = f"[peers.mallory]\naddress = '127.0.0.1:{parties.port}'\n"
    other = PartyNode(tmp_path, "bank", f"transport = 'native'\n{tls(parties.certificates, 'bank')}{peer}")
    other.credentials = parties.guest.credentials
    make_bound_pair(
        other.registry,
        tmp_path,
        model="m",
        version="1",
        guest="bank",
        host="mallory",
        guest_weights={"a": 1.0},
        host_weights={"x": 1.0},
        intercept=0.0,
    )
    try:
        other.start()
        reply = other.load("m", "1")
        assert [(one.party, one.reason) for one in reply.replicas if one.party == "mallory"]
        assert "unreachable" in next(one.reason for one in reply.replicas if one.party == "mallory")
    finally:
        other.stop()


async def _predict(address: str, credentials: ChannelCredentials, name: str) -> wire.PredictReply:
    link = channel(Transport.GRPCIO, address, ChannelOptions(credentials=credentials))
    try:
        stub = inference_pb2_grpc.InferenceStub(link.stub_channel)
        request = wire.PredictRequest(service="s", user_id="0001", numbers={"a": -1.0})
        reply: wire.PredictReply = await stub.Predict(request, timeout=5, metadata=(("authorization", name),))
        return reply
    finally:
        await link.close()


def test_grpcio_callers_are_served_over_tls_too(parties: SecureParties) -> None:
    credentials = ChannelCredentials(parties.certificates / "ca.pem")
    reply = asyncio.run(_predict(parties.guest.address("service"), credentials, f"bearer {token('ann')}"))
    assert list(reply.score) == [0.5]
