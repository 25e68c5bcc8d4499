"""Servers whose calls leave spans."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from functools import partial, wraps
from typing import Any

from serving.errors import code_of
from serving.telemetry.spans import TRACEPARENT, TRACESTATE, Begin, Span, Watch, within
from serving.telemetry.tracer import Tracer
from serving.transport import BytesHandler, Call, Code, Promise, RpcError, Server, ServerCredentials

_INFERENCE = ("/v1/", "/v2/models/", "/federation/")
"""What the paths of inference over HTTP begin with."""


class TracedServer(Server):
    """Calls of bytes handlers, which are those of inference."""

    def __init__(self, server: Server, tracer: Tracer) -> None:
        self._server = server
        self._tracer = tracer

    @property
    def registry(self) -> Any:
        return self._server.registry

    def add_bytes_handler(self, path: str, handler: BytesHandler) -> None:
        self._server.add_bytes_handler(path, traced(path, handler, self._tracer))

    def add_port(self, address: str, credentials: ServerCredentials | None = None) -> int:
        return self._server.add_port(address, credentials)

    def add_socket(self, listening: socket.socket, credentials: ServerCredentials | None = None) -> None:
        self._server.add_socket(listening, credentials)

    def closings(self) -> Mapping[str, int]:
        return self._server.closings()

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)

    async def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        return await self._server.wait_for_termination(timeout_s)


def _serve(tracer: Tracer, name: str, call: Call) -> Span | None:
    """The span of a call when it is traced."""
    parent = call.value_of(TRACEPARENT)
    span = tracer.serve(name, parent, _tracestate(call) if parent else "")
    if span is not None:
        service, _, method = name.rpartition("/")
        span.attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return span


def _tracestate(call: Call) -> str:
    """Several fields are one list."""
    if not call.value_of(TRACESTATE):
        return ""
    return ",".join(str(value) for key, value in call.metadata() if key == TRACESTATE)


def traced(path: str, handler: BytesHandler, tracer: Tracer) -> BytesHandler:
    name = path.removeprefix("/")

    @wraps(handler)
    def handle(raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        span = _serve(tracer, name, call)
        if span is None:
            return handler(raw, call)
        try:
            with within(span):
                reply = handler(raw, call)
        except BaseException as error:
            _end(span, _code(error))
            raise
        if isinstance(reply, bytes):
            _end(span, Code.OK)
            return reply
        if isinstance(reply, (Promise, asyncio.Future)):
            reply.add_done_callback(partial(_replied, span))
            return reply
        return _awaited(span, reply)

    return handle


def watching(path: str, tracer: Tracer) -> Watch:
    """Of requests within calls of this method: each has a span, under that of the call's caller. `Begin` raises what
    the request is answered by, which is no status yet."""
    name = path.removeprefix("/")

    def watch(call: Call, begin: Begin) -> Awaitable[bytes]:
        span = _serve(tracer, name, call)
        return begin() if span is None else _watched(span, begin)

    return watch


async def _watched(span: Span, begin: Begin) -> bytes:
    try:
        with within(span):
            answer = await begin()
    except BaseException as error:
        _end(span, Code.CANCELLED if isinstance(error, asyncio.CancelledError) else code_of(error))
        raise
    _end(span, Code.OK)
    return answer


async def _awaited(span: Span, reply: Awaitable[bytes]) -> bytes:
    try:
        with within(span):
            answer = await reply
    except BaseException as error:
        _end(span, _code(error))
        raise
    _end(span, Code.OK)
    return answer


def _replied(span: Span, reply: Promise[bytes] | asyncio.Future[bytes]) -> None:
    error = asyncio.CancelledError() if reply.cancelled() else reply.exception()
    _end(span, Code.OK if error is None else _code(error))


def _end(span: Span, code: Code) -> None:
    span.attributes["rpc.grpc.status_code"] = code.value
    span.end("" if code is Code.OK else code.name)


def _code(error: BaseException) -> Code:
    if isinstance(error, RpcError):
        return error.code
    return Code.CANCELLED if isinstance(error, asyncio.CancelledError) else Code.UNKNOWN


class TracedHttp:
    """An ASGI application whose inference calls leave spans."""

    def __init__(self, application: Any, tracer: Tracer) -> None:
        self._application = application
        self._tracer = tracer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        span = self._span(scope)
        if span is None:
            await self._application(scope, receive, send)
            return

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                span.attributes["http.response.status_code"] = message["status"]
            await send(message)

        failure = "cancelled"
        try:
            with within(span):
                await self._application(scope, receive, watched)
            status = int(span.attributes.get("http.response.status_code", 0))
            failure = "" if 200 <= status < 300 else str(status)
        finally:
            _name(span, scope)
            span.end(failure)

    def _span(self, scope: Any) -> Span | None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(_INFERENCE):
            return None
        headers = scope["headers"]
        parent = next(_values(headers, TRACEPARENT), "")
        return self._tracer.serve("POST", parent, ",".join(_values(headers, TRACESTATE)) if parent else "")


def _values(headers: Iterable[tuple[bytes, bytes]], name: str) -> Iterator[str]:
    key = name.encode()
    return (value.decode("latin-1") for one, value in headers if one == key)


def _name(span: Span, scope: Any) -> None:
    """By the route, once it is known: what callers write in a path is theirs."""
    span.attributes["http.request.method"] = "POST"
    route = getattr(scope.get("route"), "path", "")
    if route:
        span.name = f"POST {route}"
        span.attributes["http.route"] = route
