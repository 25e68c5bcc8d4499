"""Open Inference Protocol v2, asked by tritonclient."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from loaders.registry import open_half
from serving.transport import Channel, Code, RpcError
from tessera.compat import open_inference_pb2 as oip
from tessera.compat import open_inference_pb2_grpc
from tessera.v1 import admin_pb2
from tests.artifacts import make_onnx, make_words
from tests.e2e.test_two_parties import Parties, expected
from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("transport")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def guest(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PartyNode]:
    narrow = "[limits.services.narrow]\nper_s = 0.001\nburst = 1\n"
    traces = "[traces]\nendpoint = 'http://127.0.0.1:1/v1/traces'\n"
    both = Parties(tmp_path_factory.mktemp("parties"), narrow + traces)
    both.pair()
    both.pair(model="n")
    for version in "12":
        make_onnx(both.guest.registry, model="local", version=version, party=both.guest.party, further=True)
    make_words(both.guest.registry, model="words", version="1", party=both.guest.party)
    both.start()
    try:
        both.guest.load("words", "1")
        for version in "12":
            both.guest.load("local", version)
        halves = [admin_pb2.VariantWeight(model="local", version=version, weight=5_000) for version in "12"]
        both.guest.admin("PublishOnline", admin_pb2.PublishOnlineRequest(service="split", variants=halves))
        both.guest.online("narrow", "local", "1")
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        yield both.guest
    finally:
        both.stop()


def ran(client: str, *addresses: str) -> dict[str, Any]:
    """What the steps of a client gave."""
    command = [sys.executable, "-P", str(HERE / client), *addresses]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    steps: dict[str, Any] = json.loads(done.stdout)
    return steps


@pytest.fixture(scope="module")
def said(guest: PartyNode) -> dict[str, Any]:
    return ran("triton_client.py", guest.address("service"), guest.address("admin"))


@pytest.fixture(scope="module")
def said_over_http(guest: PartyNode) -> dict[str, Any]:
    return ran("triton_http_client.py", guest.address("http"))


def score(user: str) -> Any:
    return [pytest.approx(expected(user), abs=1e-12)]


def test_health(said: dict[str, Any]) -> None:
    names = ("live", "ready", "model_ready", "version_ready", "none_ready")
    assert [said[name] for name in names] == [True, True, True, True, False]


def test_metadata_and_config_describe_a_service(said: dict[str, Any]) -> None:
    assert said["server"]["name"] == "tessera"
    assert "model_repository" in said["server"]["extensions"]
    tensors = {one["name"]: (one["datatype"], one["shape"]) for one in said["metadata"]["inputs"]}
    assert tensors == {"user_id": ("BYTES", ["-1", "1"]), "a": ("FP64", ["-1", "1"]), "b": ("FP64", ["-1", "1"])}
    assert [one["name"] for one in said["metadata"]["outputs"]] == ["score", "fed_status_shop"]
    assert said["metadata"]["versions"] == ["1"]
    config = said["config"]["config"]
    assert (config["name"], config["max_batch_size"]) == ("s", 1000)
    assert [one["data_type"] for one in config["input"]] == ["TYPE_STRING", "TYPE_FP64", "TYPE_FP64"]


def test_a_score_comes_back_raw_with_its_id(said: dict[str, Any]) -> None:
    answer = said["infer"]
    assert answer == {
        "score": [score("0001")],
        "status": ["OK"],
        "id": "r-1",
        "model": "s",
        "version": "1",
        "raw": True,
        "last": False,
    }
    assert said["explicit"]["score"] == [score("0001")]
    assert said["async"]["score"] == [score("0003")]


def test_a_batch_has_a_status_per_row(said: dict[str, Any]) -> None:
    assert said["batch"]["status"] == ["OK", "OK", "NOT_FOUND"]
    assert said["batch"]["score"][:2] == [score("0001"), score("0002")]
    assert math.isnan(said["batch"]["score"][2][0])


@pytest.mark.parametrize("datatype", ["fp32", "fp16", "bf16"])
def test_narrow_numbers_are_numbers(said: dict[str, Any], datatype: str) -> None:
    """0.25 and -1.5 are the same in each."""
    assert said[datatype]["score"] == [score("0001")]


def test_only_what_was_asked_for_comes_back(said: dict[str, Any]) -> None:
    assert said["one_output"] == ["score"]


def test_a_repeated_case_has_the_id_of_its_own_call(said: dict[str, Any]) -> None:
    first, again = said["case"]
    assert (first.pop("id"), again.pop("id")) == ("x", "y")
    assert first == again
    statistics = said["statistics"]["model_stats"][0]
    assert int(statistics["inference_stats"]["cache_hit"]["count"]) == 1
    assert int(statistics["execution_count"]) >= 8
    batches = {int(one["batch_size"]): int(one["compute_infer"]["count"]) for one in statistics["batch_stats"]}
    assert batches.keys() == {1, 3}
    assert sum(batches.values()) == int(statistics["execution_count"])
    assert sum(rows * count for rows, count in batches.items()) == int(statistics["inference_count"])


@pytest.mark.parametrize("step", ["local", "split"])
def test_a_local_model_gives_all_its_outputs_for_all_rows(said: dict[str, Any], step: str) -> None:
    """`split` is a service of two versions, which some rows meet and some the other."""
    answer = said[step]
    assert answer["names"] == ["score", "same", "larger", "word"]
    rows = [[0.0, 0.25], [1.0, 0.0], [0.5, 0.75], [2.0, 0.0], [0.0, 3.0]]
    assert answer["same"] == rows
    assert answer["larger"] == [[1], [0], [1], [0], [1]]
    assert answer["word"] == [[str(place)] for [place] in answer["larger"]]
    for [given], (a, b) in zip(answer["score"], rows, strict=True):
        assert given == pytest.approx(1 / (1 + math.exp(0.5 - a - 2 * b)), abs=1e-6)


def test_the_largest_values_are_named_where_a_caller_asks_for_classes(
    said: dict[str, Any], said_over_http: dict[str, Any]
) -> None:
    largest = [["0.250000:1"], ["1.000000:0"]]
    assert said["classes"] == largest
    assert said_over_http["classes"] == [largest, largest]


def test_a_repeated_case_has_the_classes_of_its_own_call(guest: PartyNode) -> None:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.25]}]

    def data(**parameters: Any) -> list[Any]:
        asked = {
            "inputs": inputs,
            "parameters": {"case_id": "classes"},
            "outputs": [{"name": "same", "parameters": parameters}],
        }
        found: list[Any] = guest.http("POST", "/v2/models/local/infer", json=asked).json()["outputs"][0]["data"]
        return found

    for _ in range(2):
        assert (data(classification=1), data()) == (["0.500000:0"], [0.5, 0.25])


def test_a_local_model_is_described_as_itself(said: dict[str, Any]) -> None:
    tensors = {one["name"]: (one["datatype"], one["shape"]) for one in said["local_metadata"]["outputs"]}
    assert tensors == {
        "score": ("FP32", ["-1", "1"]),
        "same": ("FP32", ["-1", "2"]),
        "larger": ("INT64", ["-1", "1"]),
        "word": ("BYTES", ["-1", "1"]),
    }
    assert {one["name"]: one["shape"] for one in said["local_metadata"]["inputs"]}["x"] == ["-1", "2"]


def test_a_text_is_a_feature_too(said: dict[str, Any]) -> None:
    assert np.ravel(said["words"]).tolist() == [0.0, 1.0, 0.0, 0.0]
    tensors = {one["name"]: (one["datatype"], one["shape"]) for one in said["words_metadata"]["inputs"]}
    assert tensors["colour"] == ("BYTES", ["-1", "1"])
    code, text = said["numbers_for_words"]
    assert (code, "'colour'" in text) == ("StatusCode.INVALID_ARGUMENT", True)


NUMBERS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "i1"),
    "INT16": ("int_contents", "<i2"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "u1"),
    "UINT16": ("uint_contents", "<u2"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP16": ("", "<f2"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    "BF16": ("", ""),
}


@pytest.mark.parametrize("datatype", list(NUMBERS))
def test_a_number_of_every_datatype_is_a_feature_typed_and_raw(guest: PartyNode, datatype: str) -> None:
    field, dtype = NUMBERS[datatype]
    typed, raw = oip.ModelInferRequest(model_name="s"), oip.ModelInferRequest(model_name="s")
    for request in (typed, raw):
        request.inputs.add(name="user_id", datatype="BYTES", shape=[1])
    typed.inputs[0].contents.bytes_contents.append(b"0001")
    raw.raw_input_contents.append(b"\x04\x00\x00\x000001")
    for name, value in (("a", 1), ("b", 0)):
        for request in (typed, raw):
            request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        encoded = np.array([value], dtype).tobytes() if dtype else np.array([value], "<f4").tobytes()[2:]
        raw.raw_input_contents.append(encoded)
        if field:
            getattr(typed.inputs[-1].contents, field).append(value)

    async def ask(link: Channel) -> list[Any]:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        replies = [(await stub.ModelInfer(raw, timeout=5)).raw_output_contents[0]]
        if field:
            replies.append((await stub.ModelInfer(typed, timeout=5)).outputs[0].contents.fp64_contents)
        return replies

    replies = guest.call("service", ask)
    wanted = pytest.approx(expected("0001", {"a": 1, "b": 0}), abs=1e-12)
    assert np.frombuffer(replies[0], "<f8").tolist() == [wanted]
    assert all(list(reply) == [wanted] for reply in replies[1:])


def test_an_error_in_a_stream_is_one_answer_of_it(said: dict[str, Any]) -> None:
    first, second, third = said["stream"]
    assert (first["id"], first["score"]) == ("one", [score("0001")])
    assert "Request for unknown model" in second
    assert (third["id"], third["score"]) == ("three", [score("0002")])


def test_the_only_answer_to_a_request_of_a_stream_is_the_last_where_a_caller_waits_for_one(
    said: dict[str, Any],
) -> None:
    first, _, third = said["stream"]
    assert (first["last"], third["last"]) == (False, True)


def test_what_is_wrong_is_said_as_clients_expect_it(said: dict[str, Any]) -> None:
    code, text = said["unknown"]
    assert code == "StatusCode.NOT_FOUND"
    assert "Request for unknown model" in text


def test_model_control_is_for_operators(said: dict[str, Any]) -> None:
    for step in ("load_here", "log"):
        assert said[step][0] == "StatusCode.UNAUTHENTICATED"
    code, text = said["load_file"]
    assert code == "StatusCode.INVALID_ARGUMENT"
    assert "is refused" in text
    code, text = said["load_unknown"]
    assert code == "StatusCode.NOT_FOUND"
    assert "failed to load" in text


def test_the_log_level_is_what_the_log_settings_say(said: dict[str, Any]) -> None:
    assert "logging" in said["server"]["extensions"]
    steps = ("log_settings", "log_more", "log_less", "log_as_before")
    shown = [
        {name: next(iter(value.values())) for name, value in said[step]["settings"].items() if "log_e" not in name}
        for step in steps
    ]
    fixed = {"log_file": "", "log_format": "default"}
    assert shown == [
        {"log_info": info, "log_warning": True, "log_verbose_level": verbose, **fixed}
        for info, verbose in ((True, 0), (True, 1), (False, 0), (True, 0))
    ]
    code, text = said["log_file"]
    assert (code, "'log_file' is that of the settings file" in text) == ("StatusCode.INVALID_ARGUMENT", True)


def test_the_trace_settings_choose_what_is_traced(said: dict[str, Any]) -> None:
    assert "trace" in said["server"]["extensions"]
    steps = ("trace", "trace_more", "trace_none", "trace_as_before")
    names = ("trace_level", "trace_rate", "trace_count")
    shown = [{name: value["value"] for name, value in said[step]["settings"].items()} for step in steps]
    assert [[one[name] for name in names] for one in shown] == [
        [["TIMESTAMPS"], ["0"], ["-1"]],
        [["TIMESTAMPS"], ["1000"], ["5"]],
        [["OFF"], ["1000"], ["5"]],
        [["TIMESTAMPS"], ["0"], ["-1"]],
    ]
    assert shown[0]["trace_mode"] == ["opentelemetry"]
    refused = [said[step] for step in ("trace_here", "trace_of_model", "trace_of_none", "trace_tensors")]
    assert [code.removeprefix("StatusCode.") for code, _ in refused] == [
        "UNAUTHENTICATED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
    ]
    assert "spans hold no tensors" in refused[3][1]


def test_a_model_is_loaded_and_unloaded(said: dict[str, Any]) -> None:
    assert {(one["name"], one["version"], one["state"]) for one in said["index"]["models"]} == {
        ("s", "1", "READY"),
        ("narrow", "1", "READY"),
        ("split", "1", "READY"),
        ("split", "2", "READY"),
        ("m", "1", "READY"),
        ("local", "1", "READY"),
        ("local", "2", "READY"),
        ("words", "1", "READY"),
        ("n", "1", "UNAVAILABLE"),
    }
    assert (said["loaded"], said["unloaded"]) == (True, False)
    assert said["unload_bound"][0] == "StatusCode.FAILED_PRECONDITION"


def test_numbers_over_http_are_numbers_and_defaults_are_there(guest: PartyNode) -> None:
    config = guest.http("GET", "/v2/models/local/versions/1/config").json()
    assert (config["name"], config["max_batch_size"], config["model_transaction_policy"]) == (
        "local",
        1000,
        {"decoupled": False},
    )
    [tensor] = [one for one in config["input"] if one["name"] == "x"]
    assert (tensor["data_type"], tensor["dims"], tensor["optional"]) == ("TYPE_FP32", [2], False)
    assert guest.http("POST", "/v2/models/local/versions/1/infer", json=ROW).status_code == 200
    [one] = guest.http("GET", "/v2/models/local/versions/1/stats").json()["model_stats"]
    assert type(one["inference_count"]) is type(one["last_inference"]) is type(one["execution_count"]) is int
    success, fail = one["inference_stats"]["success"], one["inference_stats"]["fail"]
    assert (type(success["ns"]), type(fail["count"])) == (int, int)
    assert one["batch_stats"][0]["compute_infer"]["count"] >= 1


ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5]}]}


def counted(guest: PartyNode, path: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Answers and failures by name and version."""
    found = guest.http("GET", f"/v2/models/{path}").json()["model_stats"]
    return {
        (one["name"], one["version"]): tuple(one["inference_stats"][name]["count"] for name in ("success", "fail"))
        for one in found
    }


def test_each_version_has_its_own_figures(guest: PartyNode) -> None:
    before = counted(guest, "stats")
    assert {("s", "1"), ("split", "1"), ("split", "2"), ("local", "1"), ("local", "2"), ("m", "1")} <= before.keys()
    for version, times in (("1", 1), ("2", 3)):
        for _ in range(times):
            assert guest.http("POST", f"/v2/models/local/versions/{version}/infer", json=ROW).status_code == 200
    assert guest.http("POST", "/v2/models/local/versions/2/infer", json={"inputs": []}).status_code == 400
    for user in range(20):
        body = {"inputs": [*ROW["inputs"], {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": [f"{user}"]}]}
        assert guest.http("POST", "/v2/models/split/infer", json=body).status_code == 200
    after = counted(guest, "stats")

    def more(name: str, version: str) -> tuple[int, ...]:
        return tuple(now - then for now, then in zip(after[name, version], before[name, version], strict=True))

    assert (more("local", "1"), more("local", "2")) == ((1, 0), (3, 1))
    assert more("split", "1")[0] + more("split", "2")[0] == 20
    assert min(more("split", "1")[0], more("split", "2")[0]) > 0
    assert counted(guest, "local/stats").keys() == {("local", "1"), ("local", "2")}
    assert counted(guest, "split/versions/2/stats") == {("split", "2"): after["split", "2"]}


def test_a_service_answers_by_the_versions_that_it_lists(guest: PartyNode) -> None:
    described = guest.http("GET", "/v2/models/split").json()
    assert described["versions"] == ["1", "2"]
    for version in described["versions"]:
        path = f"/v2/models/split/versions/{version}"
        assert guest.http("GET", f"{path}/ready").json()["ready"] is True
        reply = guest.http("POST", f"{path}/infer", json=ROW).json()
        assert (reply["model_name"], reply["model_version"]) == ("split", version)
    assert guest.http("GET", "/v2/models/split/versions/3/ready").status_code == 404


def test_a_timeout_counts_over_http_as_over_grpc(guest: PartyNode) -> None:
    """In microseconds: too few for the host to be asked."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": [1], "data": [value]}
        for name, datatype, value in (("user_id", "BYTES", "nobody asked"), ("a", "FP64", 1), ("b", "FP64", 1))
    ]
    for parameters, status in (({"timeout": 1}, 503), ({"timeout": 10**400}, 400), ({"timeout": "1"}, 400), ({}, 400)):
        reply = guest.http("POST", "/v2/models/s/infer", json={"inputs": inputs, "parameters": parameters})
        assert reply.status_code == status, reply.text


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/v2/none", 404),
        ("POST", "/v2/models/s/generate", 404),
        ("GET", "/v2/models/s/infer", 405),
        ("PUT", "/v2/models/s", 405),
    ],
)
def test_paths_and_verbs_that_there_are_not_are_errors_of_the_protocol(
    guest: PartyNode, verb: str, path: str, status: int
) -> None:
    answer = guest.http(verb, path)
    assert (answer.status_code, path in answer.json()["error"]) == (status, True)
    assert guest.http(verb, path.replace("/v2", "/v9")).json()["error"]["code"] == "NOT_FOUND"


def test_a_service_that_lacks_a_version_is_not_ready(guest: PartyNode) -> None:
    for version in "12":
        make_onnx(guest.registry, model="partly", version=version, party=guest.party)
        guest.load("partly", version)
    halves = [admin_pb2.VariantWeight(model="partly", version=version, weight=5_000) for version in "12"]
    guest.admin("PublishOnline", admin_pb2.PublishOnlineRequest(service="lacking", variants=halves))

    async def ask(link: Channel) -> bool:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        return bool((await stub.ModelReady(oip.ModelReadyRequest(name="lacking"), timeout=5)).ready)

    def ready() -> tuple[bool, int, bool]:
        reply = guest.http("GET", "/v2/models/lacking/ready")
        return guest.call("service", ask), reply.status_code, reply.json()["ready"]

    assert ready() == (True, 200, True)
    guest.admin("Unload", admin_pb2.UnloadRequest(model="partly", version="2", force=True))
    assert ready() == (False, 503, False)
    states = {(one["version"], one["state"]) for one in guest.http("POST", "/v2/repository/index").json()
              if one["name"] == "lacking"}  # fmt: skip
    assert states == {("1", "READY"), ("2", "UNAVAILABLE")}


def test_an_index_of_what_is_ready_has_nothing_else(guest: PartyNode) -> None:
    for body, others in (({"ready": True}, False), ({"ready": False}, True), (None, True)):
        found = guest.http("POST", "/v2/repository/index", json=body).json()
        assert {"s", "split", "local"} <= {one["name"] for one in found if one["state"] == "READY"}
        assert any(one["state"] != "READY" and one["reason"] for one in found) == others
    assert guest.http("POST", "/v2/repository/index", json=[]).status_code == 400

    async def ask(link: Channel) -> set[str]:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        reply = await stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True), timeout=5)
        return {one.state for one in reply.models}

    assert guest.call("service", ask) == {"READY"}


@pytest.mark.parametrize("port", ["service", "admin"])
@pytest.mark.parametrize("kind", ["System", "Cuda"])
def test_shared_memory_is_not_offered_on_any_port(guest: PartyNode, kind: str, port: str) -> None:
    for action in ("Status", "Register", "Unregister"):
        method = f"/inference.GRPCInferenceService/{kind}SharedMemory{action}"

        async def ask(link: Channel, method: str = method) -> bytes:
            return await link.unary(method, b"", 5)

        with pytest.raises(RpcError) as caught:
            guest.call(port, ask)
        assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
def test_shared_memory_over_http_is_not_offered(guest: PartyNode, kind: str) -> None:
    for verb, end in (
        ("GET", "status"),
        ("GET", "region/r/status"),
        ("POST", "region/r/register"),
        ("POST", "unregister"),
    ):
        answer = guest.http(verb, f"/v2/{kind}/{end}")
        assert (answer.status_code, "shared memory" in answer.json()["error"]) == (501, True)


def controlled(guest: PartyNode, method: str, request: object) -> tuple[Code, str]:
    async def ask(link: Channel) -> object:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        return await getattr(stub, method)(request, timeout=10)

    try:
        guest.call("admin", ask)
    except RpcError as error:
        return error.code, error.details
    return Code.OK, ""


def test_the_version_to_load_may_be_a_number(guest: PartyNode) -> None:
    for version, code in ((1, Code.OK), (9, Code.NOT_FOUND)):
        request = oip.RepositoryModelLoadRequest(model_name="local")
        request.parameters["version"].int64_param = version
        assert controlled(guest, "RepositoryModelLoad", request)[0] is code


@pytest.mark.parametrize("parameter", ["config", "file:1/model.onnx"])
def test_what_does_not_come_from_the_registry_is_refused(guest: PartyNode, parameter: str) -> None:
    request = oip.RepositoryModelLoadRequest(model_name="local")
    request.parameters[parameter].bytes_param = b"{}"
    code, text = controlled(guest, "RepositoryModelLoad", request)
    assert (code, repr(parameter) in text) == (Code.INVALID_ARGUMENT, True)


def test_a_service_is_not_unloaded_by_its_name(guest: PartyNode) -> None:
    code, text = controlled(guest, "RepositoryModelUnload", oip.RepositoryModelUnloadRequest(model_name="split"))
    assert (code, "it is a service" in text) == (Code.FAILED_PRECONDITION, True)


def asked(guest: PartyNode, model: str, rows: int) -> Code:
    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[bytes(8 * rows)])
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])

    async def ask(link: Channel) -> object:
        return await open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel).ModelInfer(request, timeout=5)

    try:
        guest.call("service", ask)
    except RpcError as error:
        return error.code
    return Code.OK


def test_over_capacity_is_unavailable_and_too_many_rows_a_wrong_shape(guest: PartyNode) -> None:
    assert [asked(guest, "narrow", 1) for _ in range(2)] == [Code.OK, Code.UNAVAILABLE]
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.0, 0.0]}]}
    refused = guest.http("POST", "/v2/models/narrow/infer", json=body)
    assert (refused.status_code, "rows a second" in refused.json()["error"]) == (503, True)
    assert int(refused.headers["retry-after"]) > 0
    assert asked(guest, "local", 1_001) is Code.INVALID_ARGUMENT


def test_shared_memory_is_not_offered(said: dict[str, Any]) -> None:
    assert said["shared_memory"][0] == "StatusCode.UNIMPLEMENTED"


def test_http_says_what_grpc_says(said: dict[str, Any], said_over_http: dict[str, Any]) -> None:
    http = said_over_http
    assert [http[name] for name in ("live", "ready", "model_ready", "none_ready")] == [True, True, True, False]
    assert http["server"] == said["server"]
    assert [one["name"] for one in http["metadata"]["inputs"]] == [one["name"] for one in said["metadata"]["inputs"]]
    assert json_format.ParseDict(http["config"], oip.ModelConfig()) == json_format.ParseDict(
        said["config"]["config"], oip.ModelConfig()
    )
    assert ("m", "1", "READY") in {(one["name"], one["version"], one["state"]) for one in http["index"]}


def test_properties_name_the_hosts_and_the_halves_that_belong_together(
    guest: PartyNode, said_over_http: dict[str, Any]
) -> None:
    properties = said_over_http["metadata"]["properties"]
    binding = open_half(guest.registry, "m", "1", guest.party).binding_digest
    assert properties == {"fed_hosts": "shop", "fed_binding_digest_1": binding}

    async def ask(link: Channel) -> oip.ModelMetadataResponse:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        return await stub.ModelMetadata(oip.ModelMetadataRequest(name="s"), timeout=5)

    assert guest.call("service", ask).properties == properties


def test_statistics_say_what_a_version_holds_in_memory(said: dict[str, Any]) -> None:
    [held] = said["statistics"]["model_stats"][0]["memory_usage"]
    assert (held["type"], int(held["byte_size"]) > 0) == ("CPU", True)


@pytest.mark.parametrize(("form", "users"), [("binary", ["0001", "0002"]), ("mixed", ["0001"]), ("json", ["0003"])])
def test_tensors_travel_in_every_form(said_over_http: dict[str, Any], form: str, users: list[str]) -> None:
    answer = said_over_http[form]
    assert answer["score"] == [score(user) for user in users]
    assert answer["status"] == ["OK"] * len(users)
    assert answer["id"] == ("r" if form == "binary" else None)


@pytest.mark.parametrize("form", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(said_over_http: dict[str, Any], guest: PartyNode, form: str) -> None:
    assert said_over_http[form] == [score("0001")] * 1_000
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1_000, 2], "data": [0.25] * 2_000}]
    answer = guest.http("POST", "/v2/models/local/infer", json={"inputs": inputs}, headers={"accept-encoding": form})
    assert (answer.headers["content-encoding"], answer.json()["outputs"][0]["shape"][0]) == (form, 1_000)
    plain = guest.http("POST", "/v2/models/local/infer", json=ROW, headers={"accept-encoding": form})
    assert ("content-encoding" in plain.headers, plain.headers["vary"]) == (False, answer.headers["vary"])


def test_http_refuses_as_grpc_does(said_over_http: dict[str, Any]) -> None:
    code, text = said_over_http["unknown"]
    assert "Request for unknown model" in text
    assert code in {"404", "None"}
    assert "needs the role operator" in said_over_http["load"][1]


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"{", {}, "is not an inference request"),
        (b'{"inputs": []}', {}, "there are no inputs"),
        (b'{"inputs": [{"name": "a", "datatype": "FP64", "shape": [2], "data": [1]}]}', {}, "has 1 elements"),
        (b'{"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": ["x"]}]}', {}, "not FP64"),
        (
            (
                b'{"inputs": [{"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["0001"]},'
                b' {"name": "zz", "datatype": "FP64", "shape": [1], "data": [1]}]}'
            ),
            {},
            "unknown feature 'zz'",
        ),
        (b"{}garbage", {"Inference-Header-Content-Length": "2"}, "is not an inference request"),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "15"}, "says 15 bytes, the body has 14"),
        (b'{"inputs": []}xx', {"Inference-Header-Content-Length": "14"}, "2 binary bytes behind"),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "-1"}, "is a number of bytes"),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "9" * 5_000}, "is a number of bytes"),
        (b"xx", {"Content-Encoding": "gzip"}, "the body is not gzip"),
        (b"x", {"Content-Encoding": "br"}, "content-encoding 'br'"),
    ],
)
def test_wrong_bodies_are_told_what_is_wrong(guest: PartyNode, body: bytes, headers: dict[str, str], said: str) -> None:
    answer = guest.http("POST", "/v2/models/s/infer", content=body, headers=headers)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_equal_bodies_to_other_models_and_versions_have_answers_of_their_own(guest: PartyNode) -> None:
    body = {
        "parameters": {"case_id": "one body"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5]}],
    }

    def answered(path: str) -> tuple[str, str]:
        reply = guest.http("POST", f"/v2/models/{path}/infer", json=body).json()
        return reply["model_name"], reply["model_version"]

    for _ in range(2):  # the second time from the result cache
        assert answered("local/versions/1") == ("local", "1")
        assert answered("local/versions/2") == ("local", "2")
        assert answered("split")[0] == "split"
