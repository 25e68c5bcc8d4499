"""Spans to a collector by OpenTelemetry's exporter, as OTLP over HTTP. The only code that knows OpenTelemetry (extra
`traces`)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from serving.settings import TraceSettings
from serving.telemetry.spans import Context, Kind, Span
from serving.version import SOFTWARE

_SCOPE = InstrumentationScope("tessera", SOFTWARE)
_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpExport:
    """`party` and `replica` name the process in all that it sends."""

    def __init__(self, settings: TraceSettings, token: str, party: str, replica: str) -> None:
        self._exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            certificate_file=settings.authority or None,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=settings.timeout_s,
            compression=Compression.NoCompression,
        )
        self._resource = Resource.create(
            {
                "service.name": "tessera",
                "service.version": SOFTWARE,
                "service.instance.id": f"{party}/{replica}/{os.getpid()}",
                "tessera.party": party,
            }
        )

    def send(self, spans: Sequence[Span]) -> bool:
        return self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> ReadableSpan:
        own = _context(span.context, remote=False)
        parent = None if span.parent is None else _context(span.parent, remote=span.kind is Kind.SERVER)
        return ReadableSpan(
            name=span.name,
            context=own,
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            links=[Link(_context(one, remote=False)) for one in span.links],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.failure) if span.failure else Status(StatusCode.UNSET),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=_SCOPE,
        )


def _context(context: Context, remote: bool) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, remote, _SAMPLED, state)
