"""A collector of traces: takes OTLP over HTTP as a real one does, or nothing at all for as long as it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATH = "/v1/traces"
Found = dict[str, tuple[str, Span]]
"""Spans by their ids in hexadecimal, each with the party that sent it."""


class Collector:
    """`came` of all requests; `open` while it answers."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.tokens: set[str] = set()
        self._changed = threading.Condition()
        self._spans: Found = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def trace(self, trace_id: str, complete: Callable[[Found], bool], timeout_s: float = 20) -> Found:
        """The spans of a trace, once they are complete."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = {id_: one for id_, one in self._spans.items() if one[1].trace_id.hex() == trace_id}
                if complete(found):
                    return found
                assert self._changed.wait(end - time.monotonic()), [one.name for _, one in found.values()]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.asked.set()
                collector.open.wait()
                known = self.path == PATH and self.headers["content-type"] == "application/x-protobuf"
                self.send_response(200 if known else 404)
                self.end_headers()
                collector.tokens.add(self.headers.get("authorization", ""))
                collector.keep(ExportTraceServiceRequest.FromString(body))

            def log_message(self, *arguments: object) -> None:
                """Says nothing."""

        return Handler

    def keep(self, request: ExportTraceServiceRequest) -> None:
        with self._changed:
            for resource in request.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans[span.span_id.hex()] = (named["tessera.party"], span)
            self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.open.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
