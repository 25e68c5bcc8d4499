"""All protocols of one node give the same score for the same case, and each its documented code for the same fault."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.frontdoor.fate.jobs import NO_RESULT
from serving.transport import Channel, Code, RpcError
from tessera.compat import fate_inference_pb2, fate_inference_pb2_grpc, open_inference_pb2_grpc
from tessera.compat import open_inference_pb2 as oip
from tessera.v1 import inference_pb2 as wire
from tests.e2e.test_two_parties import USERS, Parties, expected
from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("transport")

Case = Mapping[str, float | str | None]
Answer = float | str
"""The score, or the code of the protocol."""
Ask = Callable[[PartyNode, str, str, Case], Answer]

ROUNDS = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def parties(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    both = Parties(tmp_path_factory.mktemp("protocols"))
    both.pair()
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        yield both
    finally:
        both.stop()


@pytest.fixture(scope="module")
def guest(parties: Parties) -> PartyNode:
    return parties.guest


def _split(case: Case) -> tuple[dict[str, float], dict[str, str]]:
    numbers = {name: value for name, value in case.items() if isinstance(value, float)}
    return numbers, {name: value for name, value in case.items() if isinstance(value, str)}


def tessera(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    numbers, texts = _split(case)
    try:
        [score] = node.predict(service=service, user_id=user, numbers=numbers, texts=texts).score
    except RpcError as error:
        return error.code.name
    return float(score)


def tessera_batch(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    numbers, texts = _split(case)
    columns = {name: wire.NumberColumn(values=[value] * 2) for name, value in numbers.items()}
    words = {name: wire.TextColumn(values=[value] * 2) for name, value in texts.items()}
    try:
        reply = node.batch(service=service, user_ids=[user] * 2, numbers=columns, texts=words)
    except RpcError as error:
        return error.code.name
    assert reply.scores[0] == reply.scores[1]
    return float(reply.scores[0])


def _http(node: PartyNode, path: str, body: object) -> Any:
    """The reply, or the HTTP status as text."""
    raw = msgspec.json.encode(body).replace(b'"1e999"', b"1e999")
    answer = node.http("POST", path, content=raw, headers={"content-type": "application/json"})
    return answer.json() if answer.status_code == 200 else str(answer.status_code)


def _spelled(value: float | str | None) -> float | str | None:
    """JSON has no infinity; a number beyond float64 is one."""
    return "1e999" if isinstance(value, float) and math.isinf(value) else value


def http_json_batch(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    columns = {name: [_spelled(value)] * 2 for name, value in case.items()}
    reply = _http(node, "/v1/batch_predict", {"service": service, "user_ids": [user] * 2, "columns": columns})
    if isinstance(reply, str):
        return reply
    assert reply["scores"][0] == reply["scores"][1]
    return float(reply["scores"][0][0])


def http_json(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    features = {name: _spelled(value) for name, value in case.items()}
    reply = _http(node, "/v1/predict", {"service": service, "user_id": user, "features": features})
    return reply if isinstance(reply, str) else float(reply["score"][0])


def _tensors(user: str, case: Case) -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = [("user_id", "BYTES", user)] if user else []
    for name, value in case.items():
        if value is not None:
            found.append((name, "BYTES" if isinstance(value, str) else "FP64", value))
    return found


def _oip_reply(node: PartyNode, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
    async def ask(link: Channel) -> Any:
        return await open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel).ModelInfer(request, timeout=5)

    return node.call("service", ask)


def _oip(node: PartyNode, request: oip.ModelInferRequest) -> Answer:
    try:
        return _oip_score(_oip_reply(node, request))
    except RpcError as error:
        return error.code.name


def _oip_score(reply: oip.ModelInferResponse) -> float:
    if reply.raw_output_contents:
        return float(np.frombuffer(reply.raw_output_contents[0], "<f8")[0])
    return float(reply.outputs[0].contents.fp64_contents[0])


def _typed(service: str, user: str, case: Case) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=service)
    for name, datatype, value in _tensors(user, case):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        if datatype == "BYTES":
            tensor.contents.bytes_contents.append(value.encode())
        else:
            tensor.contents.fp64_contents.append(value)
    return request


def oip_typed(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    return _oip(node, _typed(service, user, case))


def _raw(service: str, user: str, case: Case) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=service)
    for name, datatype, value in _tensors(user, case):
        request.inputs.add(name=name, datatype=datatype, shape=[1, 1])
        encoded = value.encode() if datatype == "BYTES" else np.float64(value).tobytes()
        request.raw_input_contents.append(
            (len(encoded).to_bytes(4, "little") if datatype == "BYTES" else b"") + encoded
        )
    return request


def oip_raw(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    return _oip(node, _raw(service, user, case))


def oip_stream(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    """Both forms in one stream. It tells an error's text alone, which is that of ModelInfer with the code."""
    asked = [_typed(service, user, case), _raw(service, user, case)]

    async def ask(link: Channel) -> list[oip.ModelStreamInferResponse]:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        return [reply async for reply in stub.ModelStreamInfer(iter(asked), timeout=5)]

    told = node.call("service", ask)
    assert len(told) == len(asked)
    if not told[0].error_message:
        [score] = {_oip_score(one.infer_response) for one in told}
        return score
    with pytest.raises(RpcError) as alone:
        _oip_reply(node, asked[0])
    assert {one.error_message for one in told} == {alone.value.details}
    return alone.value.code.name


def oip_http(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    inputs = [
        {"name": name, "datatype": datatype, "shape": [1, 1], "data": [_spelled(value)]}
        for name, datatype, value in _tensors(user, case)
    ]
    reply = _http(node, f"/v2/models/{service}/infer", {"inputs": inputs})
    return reply if isinstance(reply, str) else float(np.ravel(reply["outputs"][0]["data"])[0])


def _fate_body(service: str, user: str, case: Case) -> dict[str, Any]:
    sent = {"id": user} if user else {}
    features = {name: _spelled(value) for name, value in case.items()}
    return {"serviceId": service, "featureData": features, "sendToRemoteFeatureData": sent}


def _fate_answer(reply: Any) -> Answer:
    return float(reply["data"]["score"]) if reply["retcode"] == 0 else str(reply["retcode"])


def _fate(node: PartyNode, method: str, body: object) -> Any:
    message = fate_inference_pb2.InferenceMessage(body=json.dumps(body).encode())

    async def ask(link: Channel) -> Any:
        stub = fate_inference_pb2_grpc.InferenceServiceStub(link.stub_channel)
        return await getattr(stub, method)(message, timeout=5)

    return json.loads(node.call("service", ask).body)


def fate(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    return _fate_answer(_fate(node, "inference", _fate_body(service, user, case)))


def _fate_batch_body(service: str, user: str, case: Case) -> dict[str, Any]:
    body = _fate_body(service, user, case)
    return {"serviceId": body.pop("serviceId"), "batchDataList": [{"index": 0, **body}]}


def _fate_rows(service: str, reply: Any) -> Answer:
    if service == "none":  # nothing answers, so there are no rows
        return _fate_answer(reply)
    assert reply["retcode"] == 0, reply
    return _fate_answer(reply["batchDataList"][0])


def fate_batch(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    return _fate_rows(service, _fate(node, "batchInference", _fate_batch_body(service, user, case)))


def fate_job(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    """Begun, and asked for until it is over."""
    begun = _fate(node, "startInferenceJob", _fate_body(service, user, case))
    if begun["retcode"]:
        return _fate_answer(begun)
    while (result := _fate(node, "getInferenceResult", {"caseid": begun["caseid"]}))["retcode"] == NO_RESULT:
        pass
    return _fate_answer(result)


def _fate_http(node: PartyNode, method: str, body: dict[str, Any]) -> Any:
    head = {"serviceId": body.pop("serviceId")}
    return node.http("POST", f"/federation/v1/{method}", json={"head": head, "body": body}).json()


def fate_http(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    return _fate_answer(_fate_http(node, "inference", _fate_body(service, user, case)))


def fate_http_batch(node: PartyNode, service: str, user: str, case: Case) -> Answer:
    return _fate_rows(service, _fate_http(node, "batchInference", _fate_batch_body(service, user, case)))


GRPC: dict[str, Ask] = {"tessera": tessera, "oip typed": oip_typed, "oip raw": oip_raw, "oip stream": oip_stream}
HTTP: dict[str, Ask] = {"http json": http_json, "http json batch": http_json_batch, "oip http": oip_http}
FATE: dict[str, Ask] = {
    "fate": fate,
    "fate job": fate_job,
    "fate batch": fate_batch,
    "fate http": fate_http,
    "fate http batch": fate_http_batch,
}
BATCH: dict[str, Ask] = {"tessera batch": tessera_batch}
ALL = {**GRPC, **HTTP, **FATE, **BATCH}

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-500, max_value=500)
CASES = st.fixed_dictionaries({"a": NUMBERS, "b": NUMBERS})


@ROUNDS
@given(user=st.sampled_from(sorted(USERS)), case=CASES)
def test_a_case_has_one_score(guest: PartyNode, user: str, case: dict[str, float]) -> None:
    answers = {name: ask(guest, "s", user, case) for name, ask in ALL.items()}
    assert set(answers.values()) == {answers["tessera"]}, answers
    assert answers["tessera"] == pytest.approx(expected(user, case), abs=1e-12)


Fault = Callable[[dict[str, Any], str, float], None]


def _set(value: float | str | None) -> Fault:
    def change(call: dict[str, Any], name: str, _: float) -> None:
        call["case"] = {**call["case"], name: value}

    return change


def _drop(call: dict[str, Any], name: str, _: float) -> None:
    call["case"] = {one: value for one, value in call["case"].items() if one != name}


FAULTS: dict[str, tuple[Fault, Code, int, int]] = {
    "an unknown service": (lambda call, *_: call.update(service="none"), Code.NOT_FOUND, 404, 104),
    "an infinite number": (_set(math.inf), Code.INVALID_ARGUMENT, 400, 102),
    "a text for a number": (_set("abc"), Code.INVALID_ARGUMENT, 400, 102),
    "a feature left out": (_drop, Code.INVALID_ARGUMENT, 400, 102),
    "a feature without a value": (_set(None), Code.INVALID_ARGUMENT, 400, 102),
    "no user": (lambda call, *_: call.update(user=""), Code.INVALID_ARGUMENT, 400, 100),
    "a user that the host does not know": (
        lambda call, *_: call.update(user="stranger"),
        Code.FAILED_PRECONDITION,
        400,
        2113,
    ),
}
"""The change to a good call, and its code in gRPC, in HTTP and in FATE's replies."""


@pytest.mark.parametrize("fault", list(FAULTS))
@settings(ROUNDS, max_examples=5)
@given(user=st.sampled_from(sorted(USERS)), case=CASES, name=st.sampled_from(("a", "b")), number=NUMBERS)
def test_a_fault_has_its_code(
    guest: PartyNode, fault: str, user: str, case: dict[str, float], name: str, number: float
) -> None:
    change, code, status, retcode = FAULTS[fault]
    call: dict[str, Any] = {"service": "s", "user": user, "case": case}
    change(call, name, number)
    answers = {asked: ask(guest, *call.values()) for asked, ask in ALL.items()}
    wanted = {
        **dict.fromkeys((*GRPC, *BATCH), code.name),
        **dict.fromkeys(HTTP, str(status)),
        **dict.fromkeys(FATE, str(retcode)),
    }
    assert answers == wanted


@settings(ROUNDS, max_examples=5)
@given(user=st.sampled_from(sorted(USERS)), case=CASES)
def test_features_that_the_model_does_not_have_are_refused_but_by_fate(
    guest: PartyNode, user: str, case: dict[str, float]
) -> None:
    """FATE-Serving takes them, and its callers send them."""
    answers = {name: ask(guest, "s", user, {**case, "height": 1.0}) for name, ask in ALL.items()}
    assert {answers[name] for name in (*GRPC, *BATCH)} == {"INVALID_ARGUMENT"}
    assert {answers[name] for name in HTTP} == {"400"}
    assert {answers[name] for name in FATE} == {tessera(guest, "s", user, case)}


def test_a_hosts_half_answers_no_caller_over_any_protocol(parties: Parties) -> None:
    """What it would give is a part of a score, which looks like one."""
    host, features = parties.host, {"x": 1.0, "y": 2.0}
    with pytest.raises(RpcError, match="this party is host of m/1; its guest answers") as one:
        host.predict(model="m", version="1", numbers=features)
    columns = {name: wire.NumberColumn(values=[value]) for name, value in features.items()}
    with pytest.raises(RpcError) as many:
        host.batch(model="m", version="1", user_ids=[""], numbers=columns)
    assert {one.value.code, many.value.code} == {Code.NOT_FOUND}
    body = {"model": "m", "version": "1", "user_id": "u", "features": features}
    assert _http(host, "/v1/predict", body) == "404"
    request = oip.ModelInferRequest(model_name="m", model_version="1")
    for name, value in features.items():
        request.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    assert _oip(host, request) == "NOT_FOUND"
    inputs = [{"name": name, "datatype": "FP64", "shape": [1], "data": [value]} for name, value in features.items()]
    assert _http(host, "/v2/models/m/versions/1/infer", {"inputs": inputs}) == "404"
    assert host.http("GET", "/v2/models/m/versions/1/ready").status_code == 404
    named = {"modelId": "m", "modelVersion": "1"}
    for method, rest in (
        ("inference", {"featureData": features}),
        ("batchInference", {"batchDataList": [{"index": 0, "featureData": features}]}),
    ):
        reply = _fate(host, method, {**named, **rest})
        assert (reply["retcode"], "its guest answers" in reply["retmsg"]) == (1121, True), reply


def test_figures_tell_protocols_apart(guest: PartyNode) -> None:
    for ask in ALL.values():
        ask(guest, "s", "0001", {"a": 0.5, "b": 0.5})
    shown = guest.http("GET", "/metrics").text
    answered = r'^tessera_requests_total{.*code="OK",protocol="([^"]+)",.*service="s"'
    found = set(re.findall(answered, shown, re.MULTILINE))
    assert found == {"tessera.v1", "http", "oip", "oip-http", "fate", "fate-http"}
