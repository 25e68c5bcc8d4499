"""A server's connection on its socket: its calls, its patience with silence, all replies of one read in one write."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Protocol, cast

from serving.transport.aio import InterceptedCall, ServicerCall
from serving.transport.call import Head
from serving.transport.closing import Closing
from serving.transport.connection import Connection
from serving.transport.credentials import HTTP2, NOBODY, identity_of
from serving.transport.deadlines import Deadlines
from serving.transport.frames import ErrorCode, StreamFault
from serving.transport.hpack import encode
from serving.transport.inflation import Inflation, Turn
from serving.transport.intake import Intake, Store
from serving.transport.listening import peer_of
from serving.transport.methods import Registry
from serving.transport.port import Compression, ServerOptions
from serving.transport.portions import MUCH, Portioned
from serving.transport.server_call import BytesCall, ServerCall, unknown_method, unserved
from serving.transport.status import Code, RpcError
from serving.transport.streams import NOWHERE, ConnectionLimits, Stream
from serving.transport.watch import Uploads, Watch

_GOODBYE_S = 5.0
_NOT_GRPC = encode(((b":status", b"415"),))
_STALLED = RpcError(Code.DEADLINE_EXCEEDED, "the request did not go on")
_HEAD_TOO_LARGE = RpcError(Code.RESOURCE_EXHAUSTED, "request headers too large")


class Owner(Protocol):
    """The server that a connection belongs to."""

    options: ServerOptions
    threads: Executor
    inflaters: Executor
    turn: Turn
    store: Store
    methods: Registry
    calls: set[ServerCall]

    def admit(self, protocol: ServerProtocol) -> None: ...

    def lost(self, protocol: ServerProtocol) -> None: ...

    def count(self, closing: Closing) -> None: ...

    def refusal(self, protocol: ServerProtocol) -> RpcError | None: ...

    def finished(self, call: ServerCall) -> None: ...

    def progressed(self) -> None: ...


class ServerProtocol(Portioned):
    """One connection: its socket, its calls, its patience with silence."""

    def __init__(self, server: Owner) -> None:
        self.server = server
        self.options = server.options
        self._limited = server.options.max_concurrent_calls is not None
        self.threads = server.threads
        self.intake: Intake[ServerCall] = Intake(server.store)
        self.inflation = Inflation(server.turn, server.inflaters)
        self.loop = asyncio.get_running_loop()
        self.peer = ""
        self.identity = NOBODY
        self.connection = Connection(NOWHERE, Head, ConnectionLimits(), self.loop.time, client=False)
        self.deadlines = Deadlines(self.loop, self.connection.streams)
        self._transport: asyncio.Transport | None = None
        self._uploads: Uploads[ServerCall] = Uploads()
        self.watch = Watch(self.connection, self.options.keepalive_s, self.loop.time())

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connection.plug(self)
        self.peer = peer_of(transport.get_extra_info("peername"))
        secured = transport.get_extra_info("ssl_object")
        self.server.admit(self)
        if secured is not None and secured.selected_alpn_protocol() != HTTP2:
            self.server.count(Closing.NO_ALPN)
            self._transport.abort()
        else:
            if secured is not None:
                self.identity = identity_of(secured)
            self.flush()

    def data_received(self, data: bytes) -> None:
        self.watch.heard_at = self.loop.time()
        self.connection.receive(data)
        self.flush()
        if self.connection.more or len(data) >= MUCH:
            self.let_others()

    @property
    def may_read(self) -> bool:
        return not self.watch.unread

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.deadlines.cancel()
        self.server.lost(self)
        self.connection.lost("the peer closed the connection")
        self.connection.plug(NOWHERE)

    def pause_writing(self) -> None:
        """A peer that does not read is not read either."""
        self.connection.hold()
        self.watch.unread = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.watch.read_again(self.loop.time())
        self.connection.resume()
        self.flush()
        self.read_on()

    def _go_on(self) -> None:
        self.connection.go_on()
        self.flush()

    def flush(self) -> None:
        output = self.connection.take_output()
        if self._transport is None or self._transport.is_closing():
            return
        if output:
            self._transport.write(output)
            if self.connection.cut_short:
                self.connection.cut_short = False
                self.loop.call_soon(self._go_on)
        drained = self.connection.draining and not self.connection.streams
        if drained or self.connection.closed_reason is not None:
            self.close()

    def close(self) -> None:
        if self._transport is not None and not self._transport.is_closing():  # TLS takes no second close
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def tick(self, now: float) -> None:
        """Give up a peer that is silent, stalled or never began."""
        if self.connection.closed_reason is not None:  # the goodbye is not read
            if now - self.watch.heard_at > _GOODBYE_S:
                self.abort()
            return
        reason = self.watch.verdict(now, self._unsent)
        if reason is not None:
            self.connection.lost(reason)
            self.abort()
            return
        if self.watch.should_ask(now):
            self.connection.ping()
        for call in self._uploads.overdue([] if self.watch.unread else self._calls(), now):
            call.cancel(_STALLED)

    @property
    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self.watch.unread and self._transport is not None else 0

    # --- streams.Endpoint ---

    def wake(self) -> None:
        self.loop.call_soon(self.flush)

    def opened(self, stream: Stream, head: Head, end: bool, payload: bytes) -> None:
        if head.content_length is not None:
            stream.owed = head.content_length - len(payload)
        if head.malformed or head.shape.malformed_request or (end and stream.owed):
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "a malformed request")
        if not head.shape.is_grpc:
            self.connection.send_head(stream, _NOT_GRPC, end=True)
            return
        refusal = head.problem
        if refusal is None and (self._limited or self.connection.pending_bytes):
            refusal = self.server.refusal(self)
        call = None if refusal else self._call(stream, head)
        if call is None:
            unserved(self, stream, head, refusal or unknown_method(head.shape.path))
            return
        stream.owner = call
        if end:
            call.received_data(payload, True)
        if not call.done:
            call.outlives = True
            self.server.calls.add(call)
            if call.deadline is not None:
                self.deadlines.watch(call.deadline)

    def _calls(self) -> list[ServerCall]:
        owners = [stream.owner for stream in self.connection.streams.values()]
        return [cast(ServerCall, owner) for owner in owners if owner is not None]

    def _call(self, stream: Stream, head: Head) -> ServerCall | None:
        methods = self.server.methods
        if methods.interceptors:
            return InterceptedCall(self, stream, head, methods)
        handler = methods.bytes_handlers.get(head.shape.path)
        if handler is not None and self.options.compression is Compression.IDENTITY:
            return BytesCall(self, stream, head, handler)
        method = methods.find(head.shape.path)
        return None if method is None else ServicerCall(self, stream, head, method)

    def answered(self, stream: Stream, head: Head, payload: bytes, last: Head) -> None:
        """Servers get no responses."""

    def head_too_large(self, stream: Stream) -> None:
        if stream.owner is None:
            unserved(self, stream, None, _HEAD_TOO_LARGE)
        else:
            raise StreamFault(stream.id, ErrorCode.ENHANCE_YOUR_CALM, "trailers too large")

    def going_away(self) -> None:
        """No more streams are opened; the connection closes when those that run have ended."""
        self.server.progressed()

    def finished(self, call: ServerCall) -> None:
        self.server.finished(call)
        if self.connection.draining:
            self.loop.call_soon(self.flush)
