"""Two real nodes send traces to a collector: one trace across both parties, and none of it holds up a call."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.frontdoor.oip.service import MODEL_STREAM_INFER
from serving.transport import Channel
from tessera.compat import open_inference_pb2 as oip
from tessera.compat import open_inference_pb2_grpc
from tessera.v1 import inference_pb2 as wire
from tessera.v1 import inference_pb2_grpc
from tests.collector import Collector, Found
from tests.e2e.test_two_parties import CASE, Parties, expected
from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("transport")

MAX_SPANS = 64
STATE = "congo=t61rcWkgMzE,rojo@x=a b"
STREAM = MODEL_STREAM_INFER.removeprefix("/")
PREDICT, INFER = "tessera.v1.Inference/Predict", "tessera.v1.Federation/Infer"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector().running() as one:
        yield one


@pytest.fixture(scope="module")
def parties(transport: object, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    traces = f"[traces]\nendpoint = '{collector.endpoint}'\nmax_spans = {MAX_SPANS}\ntimeout_s = 60\n"
    both = Parties(tmp_path_factory.mktemp("parties"), traces, traces)
    both.pair()
    both.start()
    try:
        both.guest.load("m", "1")
        both.guest.online("s", "m", "1")
        yield both
    finally:
        collector.open.set()
        both.stop()


def traced(node: PartyNode, user: str, trace_id: str, flags: str = "01", case_id: str = "") -> float:
    """The score; the call comes with a context."""
    request = wire.PredictRequest(service="s", user_id=user, case_id=case_id, numbers=CASE)
    metadata = (("traceparent", f"00-{trace_id}-{'cd' * 8}-{flags}"), ("tracestate", STATE))
    reply = node.call(
        "service",
        lambda link: inference_pb2_grpc.InferenceStub(link.stub_channel).Predict(request, timeout=5, metadata=metadata),
    )
    return reply.score[0]


def has(*wanted: tuple[str, str]) -> object:
    """Whether spans of these parties and names are there."""
    return lambda found: set(wanted) <= {(party, span.name) for party, span in found.values()}


def one(found: Found, party: str, name: str) -> Span:
    [span] = [span for by, span in found.values() if (by, span.name) == (party, name)]
    return span


def test_one_trace_goes_through_both_parties(parties: Parties, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    assert traced(parties.guest, "0001", trace_id) == pytest.approx(expected("0001"))
    found = collector.trace(trace_id, has(("bank", PREDICT), ("shop", INFER)))

    def parent(party: str, name: str) -> tuple[str, str]:
        """Party and name; "" for the caller's."""
        above = one(found, party, name).parent_span_id.hex()
        return ("", "") if above == "cd" * 8 else (found[above][0], found[above][1].name)

    assert parent("bank", PREDICT) == ("", "")
    for step in ("app preprocess", "cache l2", "cache l3", "peer shop", "local", "merge", "app postprocess"):
        assert parent("bank", step) == ("bank", PREDICT)
    assert parent("bank", "call shop") == ("bank", "peer shop")
    assert parent("shop", INFER) == ("bank", "call shop")
    for step in ("features", "local"):
        assert parent("shop", step) == ("shop", INFER)
    whole, asked = one(found, "bank", PREDICT), one(found, "shop", INFER)
    assert (whole.kind, asked.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_SERVER)
    assert one(found, "bank", "call shop").kind == Span.SPAN_KIND_CLIENT
    assert {span.trace_state for _, span in found.values()} == {STATE}
    assert whole.start_time_unix_nano <= asked.start_time_unix_nano
    assert asked.end_time_unix_nano <= whole.end_time_unix_nano
    said = {attribute.key: attribute.value.string_value for attribute in whole.attributes}
    assert (said["tessera.service"], said["tessera.variant"]) == ("s", "m:1")


def test_no_span_tells_whom_a_call_was_about(parties: Parties, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    score = traced(parties.guest, "0002", trace_id)
    found = collector.trace(trace_id, has(("bank", PREDICT), ("shop", INFER)))
    told = "".join(str(span.attributes) + span.name + span.status.message for _, span in found.values())
    assert "0002" not in told
    assert repr(score)[:8] not in told
    assert not any(f'"{feature}"' in told for feature in CASE)


def test_requests_of_a_stream_are_traced_apart(parties: Parties, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    metadata = (("traceparent", f"00-{trace_id}-{'cd' * 8}-01"), ("tracestate", STATE))
    asked = [streamed(user) for user in ("0001", "0002")]

    async def ask(link: Channel) -> list[oip.ModelStreamInferResponse]:
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(link.stub_channel)
        return [reply async for reply in stub.ModelStreamInfer(iter(asked), metadata=metadata, timeout=5)]

    assert [reply.error_message for reply in parties.guest.call("service", ask)] == ["", ""]
    found = collector.trace(trace_id, lambda found: [span.name for _, span in found.values()].count(STREAM) == 2)
    whole = {id_: span for id_, (_, span) in found.items() if span.name == STREAM}
    assert {span.parent_span_id.hex() for span in whole.values()} == {"cd" * 8}
    assert {(span.kind, span.trace_state) for span in whole.values()} == {(Span.SPAN_KIND_SERVER, STATE)}
    merged = {span.parent_span_id.hex() for _, span in found.values() if span.name == "merge"}
    assert merged
    assert merged <= set(whole)


def streamed(user: str) -> oip.ModelInferRequest:
    message = oip.ModelInferRequest(model_name="s")
    tensor = oip.ModelInferRequest.InferInputTensor
    id_ = oip.InferTensorContents(bytes_contents=[user.encode()])
    message.inputs.append(tensor(name="user_id", datatype="BYTES", shape=[1, 1], contents=id_))
    for name, number in CASE.items():
        contents = oip.InferTensorContents(fp64_contents=[number])
        message.inputs.append(tensor(name=name, datatype="FP64", shape=[1, 1], contents=contents))
    return message


def test_a_repeat_is_one_span(parties: Parties, collector: Collector) -> None:
    for trace_id in (secrets.token_hex(16), again := secrets.token_hex(16)):
        traced(parties.guest, "0001", trace_id, case_id="repeated")
    [(_, span)] = collector.trace(again, has(("bank", PREDICT))).values()
    assert {one.key: one.value.string_value for one in span.attributes}["tessera.cache"] == "l1"


def test_a_context_that_is_not_sampled_leaves_nothing(parties: Parties, collector: Collector) -> None:
    silent, trace_id = secrets.token_hex(16), secrets.token_hex(16)
    traced(parties.guest, "0001", silent, flags="00")
    traced(parties.guest, "0001", trace_id)
    collector.trace(trace_id, has(("bank", PREDICT)))
    assert collector.trace(silent, lambda found: True) == {}


def test_calls_over_http_are_named_by_their_route(parties: Parties, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{'cd' * 8}-01"}
    body = {"service": "s", "user_id": "0003", "features": CASE}
    assert parties.guest.http("POST", "/v1/predict", json=body, headers=headers).status_code == 200
    path, refused = "/v2/models/secret/infer", parties.guest.http("POST", "/v2/models/secret/infer", headers=headers)
    assert refused.status_code == 400, path
    names = ("POST /v1/predict", "POST /v2/models/{name}/infer")
    found = collector.trace(trace_id, has(*(("bank", name) for name in names), ("shop", INFER)))
    assert one(found, "bank", "local").parent_span_id == one(found, "bank", names[0]).span_id
    assert one(found, "bank", names[1]).status.message == "400"
    assert not any("secret" in str(span) for _, span in found.values())


def test_a_collector_that_stalls_holds_up_no_call(parties: Parties, collector: Collector) -> None:
    collector.asked.clear()
    collector.open.clear()
    traced(parties.guest, "0001", secrets.token_hex(16))
    assert collector.asked.wait(20)
    try:
        for _ in range(MAX_SPANS):
            assert traced(parties.guest, "0001", secrets.token_hex(16)) == pytest.approx(expected("0001"))
        lines = parties.guest.http("GET", "/metrics").text.splitlines()
        dropped = next(line for line in lines if line.startswith('tessera_spans_total{outcome="dropped"}'))
        assert float(dropped.split()[-1]) > 0
    finally:
        collector.open.set()
