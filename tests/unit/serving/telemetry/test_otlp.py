"""Spans as a collector receives them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from serving.settings import TraceSettings
from serving.telemetry.otlp import OtlpExport
from serving.telemetry.spans import Context, Kind
from serving.telemetry.tracer import Sampling, Tracer
from tests.collector import Collector

PARENT, OTHER = Context(0xAB, 0xCD, "b@c=1,a= 2"), Context(0xEF, 0x12)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().running() as one:
        yield one


def ended() -> Tracer:
    settings = TraceSettings()
    times = iter((1_000, 2_000, 5_000, 9_000))
    tracer = Tracer(settings, Sampling(settings), lambda: next(times))
    span = tracer.begin("call", Kind.SERVER, PARENT)
    span.links.append(OTHER)
    span.attributes |= {"text": "t", "count": 2, "share": 0.5, "flag": True}
    span.child("step").end()
    span.end("UNAVAILABLE")
    return tracer


def test_spans_arrive_as_they_were(collector: Collector) -> None:
    export = OtlpExport(TraceSettings(endpoint=collector.endpoint), "secret", "bank", "r0")
    assert export.send(ended().take(10))
    export.close()
    found = collector.trace(f"{0xAB:032x}", lambda found: len(found) == 2)
    assert {party for party, _ in found.values()} == {"bank"}
    [step] = [span for _, span in found.values() if span.name == "step"]
    [span] = [span for _, span in found.values() if span.name == "call"]
    assert step.parent_span_id == span.span_id
    assert span.parent_span_id.hex() == f"{0xCD:016x}"
    assert (span.kind, step.kind) == (WireSpan.SPAN_KIND_SERVER, WireSpan.SPAN_KIND_INTERNAL)
    assert (span.start_time_unix_nano, step.start_time_unix_nano) == (1_000, 2_000)
    assert (step.end_time_unix_nano, span.end_time_unix_nano) == (5_000, 9_000)
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "UNAVAILABLE")
    assert step.status.code == Status.STATUS_CODE_UNSET
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(f"{0xEF:032x}", f"{0x12:016x}")]
    assert (span.trace_state, step.trace_state) == ("b@c=1,a= 2", "b@c=1,a= 2")
    values = {one.key: one.value for one in span.attributes}
    assert values["text"].string_value == "t"
    assert (values["count"].int_value, values["share"].double_value, values["flag"].bool_value) == (2, 0.5, True)
    assert collector.tokens == {"Bearer secret"}


def test_a_collector_that_refuses_is_told_apart(collector: Collector) -> None:
    export = OtlpExport(TraceSettings(endpoint=f"{collector.endpoint}/other"), "", "bank", "r0")
    assert not export.send(ended().take(10))


def test_a_collector_that_is_away_is_told_apart() -> None:
    export = OtlpExport(TraceSettings(endpoint="http://127.0.0.1:1/v1/traces", timeout_s=0.3), "", "bank", "r0")
    assert not export.send(ended().take(10))
