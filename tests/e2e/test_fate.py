"""A FATE 1.x deployment drives two real nodes: its FATE-Flows load and bind, its callers ask."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from loaders.fate.names import FateName
from serving.transport import Channel
from tessera.compat import fate_common_service_pb2 as operations
from tessera.compat import fate_common_service_pb2_grpc, fate_inference_pb2_grpc, fate_model_service_pb2_grpc
from tessera.compat import fate_inference_pb2 as wire
from tessera.compat import fate_model_service_pb2 as models
from tessera.v1 import admin_pb2
from tests import fate_reference as reference
from tests.fate_models import GUEST, HOSTS, FateModel, Recipe, as_json, as_transfer_reply, as_zip, make
from tests.nodes import PartyNode, free_port

pytestmark = pytest.mark.usefixtures("transport")

HOST = HOSTS[0]
MODEL_ID = f"arbiter-{HOST}#guest-{GUEST}#host-{HOST}#model"
USERS: dict[str, dict[str, float]] = {
    "u1": {f"h0{n}": 0.5 - n for n in range(5)},
    "u2": {f"h0{n}": n / 4 for n in range(5)},
}
CASE = {f"g{n}": 0.25 * n - 0.5 for n in range(5)}

VERSIONS: Mapping[str, FateModel] = {
    "100": make(3, Recipe("lr", plain=True)),
    "101": make(4, Recipe("trees", plain=True)),
    "102": make(5, Recipe("trees", plain=True, strategy="mix")),
    "103": make(6, Recipe("trees", plain=True, classes=3)),
    "105": make(7, Recipe("ovr", plain=True, classes=3)),
    "106": make(8, Recipe("fm", plain=True)),
    "107": make(9, Recipe("scorecard", plain=True)),
    "108": make(10, Recipe("lr", plain=True)),
    "109": make(11, Recipe("lr", plain=True)),
}
LR, TREES, MIX = VERSIONS["100"], VERSIONS["101"], VERSIONS["102"]


class Flow:
    """The model transfer of FATE-Flow at both parties, over HTTP."""

    def __init__(self) -> None:
        flow = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                flow.asked.append(asked)
                site = ":".join(asked["namespace"].split("#")[:2])
                model = VERSIONS.get(asked["name"])
                body = as_transfer_reply(model.parts[site]) if model else b'{"retcode": 210, "retmsg": "no such model"}'
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.asked: list[dict[str, str]] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/model/transfer"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Deployment:
    def __init__(self, folder: Path) -> None:
        self.flow = Flow()
        port = free_port()
        fate = f"[fate]\ntransfer_urls = ['{self.flow.url}']\nmodels_root = 'exports'\n"
        self.guest = PartyNode(
            folder, GUEST, f"[peers.{HOST}]\naddress = '127.0.0.1:{port}'\n{fate}synchronize = true\n"
        )
        self.peer = f"[peers.{HOST}]\naddress = '127.0.0.1:{port}'\n"
        features = "[features.default]\npath = 'users.csv'\n"
        self.host = PartyNode(
            folder, HOST, f"plaintext_caller = '{GUEST}'\n[peers.{GUEST}]\nmay_load = ['*']\n{features}{fate}", port
        )
        names = list(USERS["u1"])
        rows = [",".join([user, *(str(values[name]) for name in names)]) for user, values in USERS.items()]
        (self.host.folder / "users.csv").write_text("\n".join([",".join(["id", *names]), *rows]) + "\n")
        exports = self.guest.folder / "exports"
        exports.mkdir()
        (exports / "model.zip").write_bytes(as_zip(LR.parts[f"guest:{GUEST}"]))
        (exports / "model.cache").write_bytes(as_json(LR.parts[f"guest:{GUEST}"]))

    def models(self, node: PartyNode, method: str, request: Any) -> Any:
        async def ask(link: Channel) -> Any:
            return await getattr(fate_model_service_pb2_grpc.ModelServiceStub(link.stub_channel), method)(
                request, timeout=20
            )

        return node.call("admin", ask)

    def operations(self, method: str, request: Any) -> Any:
        async def ask(link: Channel) -> Any:
            stub = fate_common_service_pb2_grpc.CommonServiceStub(link.stub_channel)
            return await getattr(stub, method)(request, timeout=20)

        return self.guest.call("admin", ask)

    def infer(self, method: str = "inference", node: PartyNode | None = None, **body: Any) -> dict[str, Any]:
        async def ask(link: Channel) -> Any:
            stub = fate_inference_pb2_grpc.InferenceServiceStub(link.stub_channel)
            return await getattr(stub, method)(wire.InferenceMessage(body=json.dumps(body).encode()), timeout=10)

        return dict(json.loads((node or self.guest).call("service", ask).body))

    def load(self, node: PartyNode, version: str = "100", **fields: Any) -> models.PublishResponse:
        return self.models(node, "publishLoad", publish(node, version, **fields))

    def bind(self, service: str, version: str = "100") -> models.PublishResponse:
        return self.models(self.guest, "publishBind", publish(self.guest, version, serviceId=service))

    def publish(self, service: str, version: str) -> None:
        for node in (self.guest, self.host):
            assert self.load(node, version).statusCode == 0
        assert self.bind(service, version).statusCode == 0


def publish(node: PartyNode, version: str, **fields: Any) -> models.PublishRequest:
    """As FATE-Flow 1.11 fills it."""
    role = "guest" if node.party == GUEST else "host"
    roles = {"guest": [GUEST], "host": [HOST], "arbiter": [HOST]}
    request = models.PublishRequest(local=models.LocalInfo(role=role, partyId=node.party), **fields)
    for name, parties in roles.items():
        request.role[name].partyId.extend(parties)
        for party in parties:
            half = request.model[name].roleModelInfo[party]
            half.tableName, half.namespace = version, f"{name}#{party}#{MODEL_ID}"
    return request


def expected(model: FateModel, user: str, case: Mapping[str, float] = CASE) -> Any:
    return reference.score(model, {f"guest:{GUEST}": dict(case), f"host:{HOST}": dict(USERS[user])}, False)


def case(user: str, service: str = "s", **fields: Any) -> dict[str, Any]:
    return {"serviceId": service, "featureData": CASE, "sendToRemoteFeatureData": {"device_id": user}, **fields}


@pytest.fixture(scope="module")
def fate(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("fate"))
    deployment.host.start()
    deployment.guest.start()
    try:
        yield deployment
    finally:
        deployment.guest.stop()
        deployment.host.stop()
        deployment.flow.server.shutdown()
        deployment.flow.server.server_close()


def test_load_bind_infer_batch_unbind_unload(fate: Deployment) -> None:
    assert fate.bind("s").statusCode == 109
    fate.publish("s", "100")
    reply = fate.infer(**case("u1", caseId="c1"))
    assert reply["retcode"] == 0, reply
    assert reply["data"]["score"] == pytest.approx(expected(LR, "u1"), abs=1e-12)
    assert reply["data"]["modelId"] == f"guest#{GUEST}#{MODEL_ID}"
    assert reply["data"]["modelVersion"] == "100"
    assert reply["data"]["timestamp"] > 1_600_000_000_000
    assert (reply["caseid"], reply["log"], reply["warn"], reply["flag"]) == ("", {}, {}, 0)
    assert fate.infer(**case("u1", caseId="c1")) == reply

    rows = [
        {"index": 4, "featureData": CASE, "sendToRemoteFeatureData": {"device_id": "u2"}},
        {"index": 0, "featureData": CASE, "sendToRemoteFeatureData": {"device_id": "u1"}, "needCheckFeature": False},
        {"index": 2, "featureData": {**CASE, "g1": "abc"}, "sendToRemoteFeatureData": {"device_id": "u1"}},
        {"index": 3, "featureData": CASE, "sendToRemoteFeatureData": {"device_id": "nobody"}},
    ]
    batch = fate.infer("batchInference", serviceId="s", caseId="b1", batchDataList=rows)
    assert (batch["retcode"], batch["caseid"]) == (0, "b1")
    assert [row["index"] for row in batch["batchDataList"]] == [0, 2, 3, 4]
    assert [row["retcode"] for row in batch["batchDataList"]] == [0, 102, 2113, 0]
    assert batch["batchDataList"][0]["data"]["score"] == pytest.approx(expected(LR, "u1"), abs=1e-12)
    assert batch["batchDataList"][3]["data"]["score"] == pytest.approx(expected(LR, "u2"), abs=1e-12)
    assert batch["singleInferenceResultMap"] == {str(row["index"]): row for row in batch["batchDataList"]}

    named = {"tableName": "100", "namespace": f"guest#{GUEST}#{MODEL_ID}"}
    for services, code in ((["s", "other"], 109), ([], 100)):
        wrong = fate.models(fate.guest, "unbind", models.UnbindRequest(serviceIds=services, **named))
        assert wrong.statusCode == code
    assert fate.infer(**case("u1"))["retcode"] == 0
    assert fate.models(fate.guest, "unbind", models.UnbindRequest(serviceIds=["s"], **named)).statusCode == 0
    assert fate.infer(**case("u1"))["retcode"] == 104
    assert fate.models(fate.guest, "unload", models.UnloadRequest(**named)).statusCode == 0
    assert fate.models(fate.guest, "unload", models.UnloadRequest(**named)).statusCode == 104
    assert fate.infer(**{**case("u1", ""), "modelId": named["namespace"], "modelVersion": "100"})["retcode"] == 1104


def test_changes_are_audited_with_what_was_before_and_after(fate: Deployment) -> None:
    lines = (fate.guest.folder / "state" / "audit.log").read_text().splitlines()
    fate.publish("audited", "103")
    named = {"tableName": "103", "namespace": f"guest#{GUEST}#{MODEL_ID}"}
    assert fate.models(fate.guest, "unload", models.UnloadRequest(**named)).statusCode == 0
    told = [json.loads(one) for one in (fate.guest.folder / "state" / "audit.log").read_text().splitlines()]
    states = [(one["what"], one["event"], one["state"]) for one in told[len(lines) :]]

    def seen(state: dict[str, Any]) -> tuple[str, list[str]]:
        return state["model"], sorted(state["services"])

    assert [(what, event, *seen(state)) for what, event, state in states] == [
        ("publishLoad", "asked", "NEW", []),
        ("publishLoad", "done", "READY", []),
        ("publishBind", "asked", "READY", []),
        ("publishBind", "done", "READY", ["audited"]),
        ("unload", "asked", "READY", ["audited"]),
        ("unload", "done", "NEW", []),
    ]
    assert states[3][2]["services"]["audited"]["current"]["variants"][0]["version"] == "103"


@pytest.mark.parametrize("version", ["101", "102", "103", "106", "107"])
def test_models_over_two_nodes(fate: Deployment, version: str) -> None:
    fate.publish(f"model{version}", version)
    for user in USERS:
        data = fate.infer(**case(user, f"model{version}"))["data"]
        wanted = expected(VERSIONS[version], user)
        assert data["score"] == pytest.approx(wanted, abs=1e-12)
        if version == "103":
            assert data["label"] == f"c{wanted.index(max(wanted))}"


def test_one_against_the_rest_gives_the_best_class(fate: Deployment) -> None:
    fate.publish("ovr", "105")
    wanted = expected(VERSIONS["105"], "u1")
    data = fate.infer(**case("u1", "ovr"))["data"]
    assert data["score"] == pytest.approx(max(wanted), abs=1e-12)
    assert data["label"] == f"c{wanted.index(max(wanted))}"


def test_another_version_answers_from_the_next_request_on(fate: Deployment) -> None:
    fate.publish("switched", "100")
    before = fate.infer(**case("u1", "switched"))["data"]
    fate.publish("switched", "101")
    after = fate.infer(**case("u1", "switched"))["data"]
    assert (before["modelVersion"], after["modelVersion"]) == ("100", "101")
    assert after["score"] == pytest.approx(expected(TREES, "u1"), abs=1e-12)


def test_a_caller_of_the_first_line_names_the_version(fate: Deployment) -> None:
    fate.publish("named", "100")
    body = {**case("u1", ""), "modelId": f"guest#{GUEST}#{MODEL_ID}", "modelVersion": "100"}
    assert fate.infer(**body)["data"]["score"] == pytest.approx(expected(LR, "u1"), abs=1e-12)


FIRST_LINE: list[dict[str, Any]] = [{"modelId": f"guest#{GUEST}#{MODEL_ID}"}, {"appid": GUEST}, {"partyId": int(GUEST)}]


def test_a_version_that_was_published_without_a_service_is_found_by_namespace_and_party(fate: Deployment) -> None:
    body = {"caseid": "f1", "featureData": CASE, "sendToRemoteFeatureData": {"device_id": "u1"}}
    for version, model in (("100", LR), ("101", TREES)):
        for node in (fate.guest, fate.host):
            assert fate.load(node, version).statusCode == 0
        assert fate.models(fate.guest, "publishOnline", publish(fate.guest, version)).statusCode == 0
        for named in FIRST_LINE:
            reply = fate.infer(**named, **body)
            assert reply["data"]["score"] == pytest.approx(expected(model, "u1"), abs=1e-12), reply
            assert reply["data"]["modelVersion"] == version
    features = {"appid": GUEST, "featureData": {**CASE, "g0": "abc"}, "sendToRemoteFeatureData": {"id": "u1"}}
    assert fate.infer(**features)["retcode"] == 1102
    assert fate.infer(**{**body, "appid": GUEST, "sendToRemoteFeatureData": {"id": "nobody"}})["retcode"] == 2113
    for named in ({"modelId": f"guest#{GUEST}#other"}, {"appid": "9998"}):
        reply = fate.infer(**named, **body)
        assert (reply["retcode"], "no version is in use" in reply["retmsg"]) == (1104, True), reply


def test_a_publication_without_a_service_waits_for_the_hosts_and_publish_bind_takes_none(fate: Deployment) -> None:
    assert fate.load(fate.guest, "108").statusCode == 0
    assert fate.models(fate.guest, "publishOnline", publish(fate.guest, "108")).statusCode == 109
    assert fate.models(fate.guest, "publishBind", publish(fate.guest, "108")).statusCode == 100


def test_a_host_that_lacks_the_model_says_104_in_a_call_and_in_a_batch(fate: Deployment) -> None:
    assert fate.load(fate.guest, "108").statusCode == 0
    body = {**case("u1", "nothing"), "modelId": f"guest#{GUEST}#{MODEL_ID}", "modelVersion": "108", "serviceId": None}
    batch = {name: body.pop(name) for name in ("modelId", "modelVersion")}
    for reply in (
        fate.infer(**batch, **body),
        fate.infer("batchInference", **batch, batchDataList=[{"index": 0, **body}, {"index": 1, **case("u2")}]),
    ):
        assert (reply["retcode"], "is not loaded at this party" in reply["retmsg"]) == (2104, True), reply


def test_a_row_of_a_host_that_lacks_the_model_now_says_so_beside_rows_at_hand(fate: Deployment) -> None:
    for node in (fate.guest, fate.host):
        assert fate.load(node, "109").statusCode == 0
    named = {"modelId": f"guest#{GUEST}#{MODEL_ID}", "modelVersion": "109"}
    rows = [{"index": index, **case(user, "")} for index, user in enumerate(USERS)]
    assert fate.infer("batchInference", **named, batchDataList=rows[:1])["batchDataList"][0]["retcode"] == 0
    half = models.UnloadRequest(tableName="109", namespace=f"host#{HOST}#{MODEL_ID}")
    assert fate.models(fate.host, "unload", half).statusCode == 0
    reply = fate.infer("batchInference", **named, batchDataList=rows)
    at_hand, lacking = reply["batchDataList"]
    assert (reply["retcode"], at_hand["retcode"], lacking["retcode"]) == (0, 0, 2104), reply
    assert lacking["retmsg"].startswith("host return code 104 host msg :rejected, no such model"), reply


def test_a_job_is_begun_and_its_result_asked_for(fate: Deployment) -> None:
    fate.publish("job", "100")
    asked = {**case("u2", "job"), "appid": GUEST, "caseid": "j1"}
    begun = fate.infer("startInferenceJob", **asked)
    assert (begun["retcode"], begun["caseid"]) == (0, "j1")
    end = time.monotonic() + 10
    while (result := fate.infer("getInferenceResult", appid=GUEST, caseid="j1"))["retcode"] == 109:
        assert time.monotonic() < end
    assert (result["retcode"], result["caseid"]) == (0, "j1")
    assert result["data"]["score"] == pytest.approx(expected(LR, "u2"), abs=1e-12)
    assert fate.infer("getInferenceResult", appid=GUEST, caseid="other")["retcode"] == 109
    assert fate.infer("getInferenceResult", appid=GUEST)["retcode"] == 1100
    assert fate.infer("startInferenceJob", featureData=CASE)["retcode"] == 100


def test_models_from_files_stay_within_their_root(fate: Deployment) -> None:
    for kind, place in (("FILE", "model.zip"), ("CACHE", "model.cache")):
        version = f"file-{kind}"
        assert fate.load(fate.guest, version, loadType=kind, filePath=place).statusCode == 0
        found = fate.models(fate.guest, "queryModel", models.QueryModelRequest(tableName=version))
        assert len(found.modelInfos) == 1
    for place in ("../serving.toml", "/etc/passwd", "", "nothing.zip", str(fate.guest.config)):
        reply = fate.load(fate.guest, "elsewhere", loadType="FILE", filePath=place)
        assert (reply.statusCode, "names no file in" in reply.message) == (107, True)


def test_models_come_from_known_addresses_only(fate: Deployment) -> None:
    before = len(fate.flow.asked)
    for url in (
        "http://127.0.0.1:1/v1/model/transfer",
        fate.flow.url + "/../x",
        "http%3A%2F%2F169.254.169.254",
        "file:///etc/passwd",
    ):
        reply = fate.load(fate.guest, "elsewhere", filePath=url)
        assert (reply.statusCode, "transfer_urls" in reply.message) == (107, True)
    assert len(fate.flow.asked) == before
    reply = fate.load(fate.guest, "104", filePath=fate.flow.url)
    assert (reply.statusCode, "refused with 210: no such model" in reply.message) == (107, True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda request: setattr(request.local, "partyId", "10000"), "this node is party"),
        (lambda request: request.role["guest"].partyId.append("9998"), "role must name one guest"),
        (lambda request: request.role["guest"].ClearField("partyId"), "role must name one guest"),
        (lambda request: request.model.clear(), "named by a namespace"),
        (lambda request: setattr(request, "loadType", "FTP"), "is none of FATEFLOW"),
    ],
)
def test_a_wrong_publication_is_refused(fate: Deployment, change: Any, text: str) -> None:
    request = publish(fate.guest, "elsewhere")
    change(request)
    reply = fate.models(fate.guest, "publishLoad", request)
    assert (reply.statusCode, text in reply.message) == (100, True), reply


def test_a_service_id_has_no_special_characters(fate: Deployment) -> None:
    for service in ("", "a?b", "a/b"):
        assert fate.bind(service).statusCode == 100


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"featureData": CASE}, 100),
        ({"serviceId": "codes"}, 100),
        ({"serviceId": "codes", "featureData": 7}, 100),
        ({"serviceId": "nothing", "featureData": CASE}, 104),
        ({"serviceId": "codes", "featureData": CASE, "sendToRemoteFeatureData": {"id": "nobody"}}, 2113),
        ({"serviceId": "codes", "featureData": CASE}, 100),
        ({"serviceId": "codes", "featureData": {**CASE, "g0": True}, "sendToRemoteFeatureData": {"id": "u1"}}, 102),
        ({"serviceId": "codes", "featureData": {"g0": 1}, "sendToRemoteFeatureData": {"id": "u1"}}, 102),
        ({"serviceId": "codes", "featureData": {**CASE, "g0": "1e999"}, "sendToRemoteFeatureData": {"id": "u1"}}, 102),
    ],
)
def test_what_is_wrong_has_its_code(fate: Deployment, body: dict[str, Any], code: int) -> None:
    fate.publish("codes", "100")
    reply = fate.infer(**body)
    assert reply["retcode"] == code, reply
    assert reply["retmsg"]
    assert ("modelVersion" in reply["data"]) == (body.get("serviceId") == "codes")


def test_values_are_read_as_they_are_spelled_and_others_left_out(fate: Deployment) -> None:
    fate.publish("spelled", "100")
    spelled = {name: f" {value:e} " for name, value in CASE.items()}
    reply = fate.infer(**{**case("u1", "spelled"), "featureData": {**spelled, "unknown": "x", "other": None}})
    assert reply["data"]["score"] == pytest.approx(expected(LR, "u1"), abs=1e-12)


def test_callers_of_the_proxy_over_http(fate: Deployment) -> None:
    fate.publish("http", "100")
    body = {"featureData": CASE, "sendToRemoteFeatureData": {"device_id": "u1"}}
    asked = {"head": {"serviceId": "http", "applyId": "a"}, "body": body}
    reply = fate.guest.http("POST", "/federation/v1/inference", json=asked, headers={"caseId": "h1"})
    shown = reply.json()
    assert (reply.status_code, shown["retcode"], shown.keys() & {"log", "warn", "caseid"}) == (200, 0, set())
    assert shown["data"]["score"] == pytest.approx(expected(LR, "u1"), abs=1e-12)
    assert fate.guest.http("GET", "/federation/v1/inference", json=asked).json()["data"] == shown["data"]
    cases = [{**body, "index": 0}, {**body, "index": 1, "featureData": {}}]
    rows = {"head": {"serviceId": "http"}, "body": {"batchDataList": cases}}
    batch = fate.guest.http("POST", "/federation/v1/batchInference", json=rows).json()
    assert batch["batchDataList"][0]["data"]["score"] == shown["data"]["score"]
    assert batch["batchDataList"][1] == batch["singleInferenceResultMap"]["1"]
    assert batch["batchDataList"][1].keys() == {"index", "retcode", "retmsg"}
    for wrong, code in ((b"{", 100), (b'{"head": {"serviceId": "nothing"}, "body": {"featureData": {}}}', 104)):
        assert fate.guest.http("POST", "/federation/v1/inference", content=wrong).json()["retcode"] == code


def test_batches_that_cannot_be_are_refused(fate: Deployment) -> None:
    fate.publish("batches", "100")
    row = {"index": 0, "featureData": CASE, "sendToRemoteFeatureData": {"id": "u1"}}
    for rows, code in (([], 100), ([row, row], 100), ([{**row, "index": n} for n in range(1_001)], 124)):
        assert fate.infer("batchInference", serviceId="batches", batchDataList=rows)["retcode"] == code
    wrong = fate.infer("batchInference", serviceId="batches", batchDataList=[{**row, "featureData": {}}])
    assert (wrong["retcode"], wrong["batchDataList"][0]["retcode"]) == (0, 102)
    assert wrong["caseid"]


@pytest.mark.parametrize(
    ("change", "whole", "row"),
    [
        ({"index": "0"}, 100, None),
        ({"index": None}, 100, None),
        ({"featureData": None}, 100, None),
        ({"featureData": [1]}, 100, None),
        ({"sendToRemoteFeatureData": "u1"}, 100, None),
        ({"sendToRemoteFeatureData": {"id": 1.5}}, 0, 100),
        ({"sendToRemoteFeatureData": {"id": ["u1"]}}, 0, 100),
        ({"featureData": {**CASE, "g0": [1]}}, 0, 102),
        ({"featureData": {**CASE, "g0": False}}, 0, 102),
        ({"featureData": {**CASE, "g0": "1e999"}}, 0, 102),
        ({"featureData": {**CASE, "g0": None}}, 0, 102),
    ],
)
def test_a_wrong_row_fails_by_itself_unless_it_is_none(
    fate: Deployment, change: dict[str, Any], whole: int, row: int | None
) -> None:
    fate.publish("batches", "100")
    good = {"index": 1, "featureData": CASE, "sendToRemoteFeatureData": {"id": "u1"}}
    reply = fate.infer("batchInference", serviceId="batches", batchDataList=[{**good, "index": 0, **change}, good])
    assert reply["retcode"] == whole, reply
    assert bool(reply["retmsg"]) == bool(whole)
    if row is not None:
        assert [one["retcode"] for one in reply["batchDataList"]] == [row, 0], reply
        assert reply["batchDataList"][0]["retmsg"]


def test_rows_fail_by_themselves_also_when_all_of_a_version_do(fate: Deployment) -> None:
    """Of one version, and of two that share the users of a service."""
    fate.publish("rows", "100")
    fate.publish("other", "101")
    [half] = fate.models(fate.guest, "queryModel", models.QueryModelRequest(queryType=2, serviceId="rows")).modelInfos
    name = FateName(half.namespace, half.tableName).model
    both = [admin_pb2.VariantWeight(model=name, version=version, weight=5_000) for version in ("100", "101")]
    fate.guest.admin("PublishOnline", admin_pb2.PublishOnlineRequest(service="both", variants=both))
    for service in ("rows", "both"):
        strangers = [case(f"stranger {number}", service) for number in range(12)]
        for known in ([], [case("u1", service)]):
            given = [*known, *strangers, {**case("u2"), "sendToRemoteFeatureData": {}}]
            given.append({**case("u2"), "featureData": {**CASE, "g0": 10**400}})
            reply = fate.infer(
                "batchInference",
                serviceId=service,
                batchDataList=[{"index": number, **row} for number, row in enumerate(given)],
            )
            assert reply["retcode"] == 0, reply
            assert [row["retcode"] for row in reply["batchDataList"]] == [0] * len(known) + [2113] * 12 + [100, 102]
            assert "host return code 113 host msg :" in reply["batchDataList"][5]["retmsg"]


def test_models_are_described(fate: Deployment) -> None:
    fate.publish("described", "100")
    everything = fate.models(fate.guest, "queryModel", models.QueryModelRequest())
    assert (everything.retcode, everything.message) == (0, "success")
    [exact] = fate.models(
        fate.guest, "queryModel", models.QueryModelRequest(queryType=2, serviceId="described")
    ).modelInfos
    assert (exact.tableName, exact.namespace) == ("100", f"guest#{GUEST}#{MODEL_ID}")
    assert "described" in exact.serviceIds
    content = json.loads(exact.content)
    assert (content["role"], content["partId"]) == ("guest", GUEST)
    assert content["federationModelMap"]["host"][HOST]["namespace"] == f"host#{HOST}#{MODEL_ID}"
    params = {node.name: node.params for node in exact.modelProcessorExt.nodes}
    assert "weight" in json.loads(params["heterologisticregression_0"])
    assert not fate.models(
        fate.guest, "queryModel", models.QueryModelRequest(queryType=2, serviceId="describe")
    ).modelInfos
    assert fate.models(fate.guest, "queryModel", models.QueryModelRequest(queryType=1, serviceId="describe")).modelInfos
    one = fate.models(fate.guest, "queryModel", models.QueryModelRequest(beginIndex=1, endIndex=2)).modelInfos
    assert [info.index for info in one] == [1]
    for wrong in ({"beginIndex": -1}, {"endIndex": -1}, {"queryType": 3}):
        assert fate.models(fate.guest, "queryModel", models.QueryModelRequest(**wrong)).retcode == 100


def test_models_are_copied_only_where_it_is_allowed(fate: Deployment) -> None:
    fate.publish("copied", "100")
    guests, hosts = (
        {"tableName": "100", "namespace": f"{one}#{MODEL_ID}"} for one in (f"guest#{GUEST}", f"host#{HOST}")
    )
    asked = models.FetchModelRequest(sourceIp="127.0.0.1", sourcePort=1, **guests)
    refused = fate.models(fate.guest, "fetchModel", asked)
    assert (refused.statusCode, "fate.sources" in refused.message) == (130, True)
    given = fate.models(fate.host, "modelTransfer", models.ModelTransferRequest(**hosts))
    assert (given.statusCode, "fate.synchronize" in given.message, given.cacheData) == (130, True, b"")


def test_a_node_copies_a_model_and_its_service_from_another(fate: Deployment, tmp_path: Path) -> None:
    fate.publish("original", "102")
    source = fate.guest.address("admin")
    settings = f"{fate.peer}[fate]\nsynchronize = true\nsources = ['{source}']\n"
    copy = PartyNode(tmp_path, GUEST, settings)
    copy.start()
    try:
        ip, _, port = source.rpartition(":")
        asked = models.FetchModelRequest(
            tableName="102",
            namespace=f"guest#{GUEST}#{MODEL_ID}",
            sourceIp=ip,
            sourcePort=int(port),
            serviceIds=["copied"],
        )
        reply = fate.models(copy, "fetchModel", asked)
        assert reply.statusCode == 0, reply
        for service in ("copied", "original"):
            answer = fate.infer(node=copy, **case("u1", service))
            assert answer["data"]["score"] == pytest.approx(expected(MIX, "u1"), abs=1e-12)
        asked.tableName = "999"
        missing = fate.models(copy, "fetchModel", asked)
        assert (missing.statusCode, "hands nothing over: 130" in missing.message) == (130, True), missing
    finally:
        copy.stop()


def test_flow_rules_and_figures(fate: Deployment) -> None:
    fate.publish("limited", "100")
    resource = f"M_100_guest#{GUEST}#{MODEL_ID}"
    rule = operations.UpdateFlowRuleRequest
    try:
        assert fate.operations("updateFlowRule", rule(source=resource, allowQps=0)).statusCode == 0
        assert fate.infer(**case("u1", "limited"))["retcode"] == 124
        assert fate.operations("updateFlowRule", rule(source=resource, allowQps=1e6)).statusCode == 0
        assert fate.infer(**case("u1", "limited"))["retcode"] == 0
        [info] = fate.models(
            fate.guest, "queryModel", models.QueryModelRequest(queryType=2, serviceId="limited")
        ).modelInfos
        content = json.loads(info.content)
        assert (content["resourceName"], content["allowQps"]) == (resource, 1e6)
        assert fate.operations("updateFlowRule", rule(source="I_inference", allowQps=0)).statusCode == 0
        assert fate.infer(**case("u1", "limited"))["retcode"] == 124
    finally:
        fate.operations("updateFlowRule", rule(source="I_inference", allowQps=1e6))
    assert fate.operations("updateFlowRule", rule(source="x", allowQps=1)).statusCode == 100
    rules = [
        (one.kind, one.name, one.is_set) for one in fate.guest.admin("ListLimits", admin_pb2.ListLimitsRequest()).limits
    ]
    assert (admin_pb2.LIMIT_KIND_RESOURCE, resource, True) in rules
    asked = operations.QueryMetricRequest(beginMs=0, endMs=1 << 60, source="I_inference")
    seconds = json.loads(fate.operations("queryMetrics", asked).data)
    assert sum(second["blockQps"] for second in seconds) >= 2
    assert sum(second["successQps"] for second in seconds) >= 1


def test_each_answer_of_a_model_counts_once(fate: Deployment) -> None:
    """Those from the result cache are not the model's; rows of a batch count one by one."""
    fate.publish("counted", "101")
    resource = f"M_101_guest#{GUEST}#{MODEL_ID}"

    def counted() -> list[int]:
        asked = operations.QueryMetricRequest(endMs=1 << 60, type=1, source=resource)
        seconds = json.loads(fate.operations("queryMetrics", asked).data)
        return [sum(one[name] for one in seconds) for name in ("passQps", "successQps", "blockQps", "exceptionQps")]

    before = counted()
    for _ in range(2):
        assert fate.infer(**case("u1", "counted", caseId="once"))["retcode"] == 0
    assert fate.infer(**case("nobody", "counted"))["retcode"] == 2113
    rows = [{"index": number, **case(user)} for number, user in enumerate(("u1", "u2", "nobody"))]
    fate.infer("batchInference", serviceId="counted", batchDataList=rows)
    rule = operations.UpdateFlowRuleRequest
    try:
        fate.operations("updateFlowRule", rule(source=resource, allowQps=0))
        assert fate.infer(**case("u1", "counted"))["retcode"] == 124
    finally:
        fate.operations("updateFlowRule", rule(source=resource, allowQps=1e6))
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [5, 3, 1, 2]


def test_settings_and_health_are_shown_without_secrets(fate: Deployment) -> None:
    props = json.loads(fate.operations("listProps", operations.QueryPropsRequest(keyword="")).data)
    assert props["party"] == GUEST
    assert json.loads(fate.operations("listProps", operations.QueryPropsRequest(keyword="max_batch")).data) == {
        "limits.max_batch_rows": "1000"
    }
    health = json.loads(fate.operations("checkHealthService", operations.HealthCheckRequest()).data)
    assert [record["healthCheckStatus"] for record in health["records"]] == ["ok"] * 3
    assert fate.flow.url in health["records"][2]["msg"]
    for method, request in (
        ("queryJvmInfo", operations.QueryJvmInfoRequest()),
        ("updateService", operations.UpdateServiceRequest()),
        ("updateConfig", operations.UpdateConfigRequest(filePath="/tmp/x", data="{}")),
    ):
        assert fate.operations(method, request).statusCode in {125, 126}


def test_models_and_bindings_outlive_a_restart(fate: Deployment) -> None:
    fate.publish("restarted", "101")
    asked = len(fate.flow.asked)
    fate.guest.stop()
    fate.guest.start()
    assert fate.infer(**case("u2", "restarted"))["data"]["score"] == pytest.approx(expected(TREES, "u2"), abs=1e-12)
    assert fate.load(fate.guest, "101").statusCode == 0
    assert len(fate.flow.asked) == asked
