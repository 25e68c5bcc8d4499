"""The native server: one asyncio.Protocol per connection, all replies of one read in one write."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from typing import Any, cast

from serving.transport.aio import InterceptedCall, ServicerCall
from serving.transport.aio_server import happened
from serving.transport.call import Head
from serving.transport.connection import Connection
from serving.transport.frames import ErrorCode, StreamFault
from serving.transport.hpack import encode
from serving.transport.methods import Registry
from serving.transport.port import BytesHandler, Compression, Interceptor, Server, ServerOptions
from serving.transport.server_call import BytesCall, ServerCall, unknown_method, unserved
from serving.transport.status import Code, RpcError
from serving.transport.streams import ConnectionLimits, Stream

_HANDSHAKE_S = 10.0
_STALL_S = 60.0
_TICK_S = 1.0
_MAX_PENDING_BYTES = 16 << 20
_NOT_GRPC = encode(((b":status", b"415"),))
_HEAD_TOO_LARGE = RpcError(Code.RESOURCE_EXHAUSTED, "request headers too large")
_BUSY = RpcError(Code.RESOURCE_EXHAUSTED, "too many calls at once")
_TOO_LATE = RpcError(Code.DEADLINE_EXCEEDED, "deadline exceeded while the request arrived")
_STOPPING = RpcError(Code.UNAVAILABLE, "the server is stopping")


class ServerProtocol(asyncio.Protocol):
    """One connection: its socket, its calls, its patience with silence."""

    def __init__(self, server: NativeServer) -> None:
        self.server = server
        self.options = server.options
        self.loop = asyncio.get_running_loop()
        self.peer = ""
        self.connection = Connection(self, Head, ConnectionLimits(), self.loop.time, client=False)
        self._transport: asyncio.Transport | None = None
        self._heard_at = self._progress_at = self._opened_at = self.loop.time()
        self._pending_bytes = 0

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self.peer = f"ipv4:{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix:"
        if not self.server.admit(self):
            self._transport.abort()
            return
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        self.connection.receive(data)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.server.lost(self)
        self.connection.lost("the peer closed the connection")

    def pause_writing(self) -> None:
        """A peer that does not read is not read either."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def flush(self) -> None:
        output = self.connection.take_output()
        if self._transport is None:
            return
        if output:
            self._transport.write(output)
        if self.connection.closed_reason is not None:
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def tick(self, now: float) -> None:
        """Close what is silent, stalled or never began."""
        connection = self.connection
        silent_s = now - self._heard_at
        if connection.pending_bytes != self._pending_bytes or not connection.pending_bytes:
            self._pending_bytes, self._progress_at = connection.pending_bytes, now
        late = not connection.settled and now - self._opened_at > _HANDSHAKE_S
        slow = connection.inside_block and silent_s > _HANDSHAKE_S
        if late or slow or now - self._progress_at > _STALL_S or silent_s > 2 * self.options.keepalive_s:
            self.server.count(
                ("handshake timeout" if late else "slow headers") if late or slow else "silent or stalled"
            )
            self.abort()
        elif silent_s > self.options.keepalive_s and not connection.pings_unanswered:
            connection.ping()

    # --- streams.Endpoint ---

    def wake(self) -> None:
        self.loop.call_soon(self.flush)

    def opened(self, stream: Stream, head: Head, end: bool) -> None:
        if head.malformed_request:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, "a malformed request head")
        if not head.is_grpc:
            self.connection.send_head(stream, _NOT_GRPC, end=True)
            return
        refusal = head.problem or self.server.refusal(self)
        call = None if refusal else self._call(stream, head)
        if call is None:
            unserved(self, stream, head, refusal or unknown_method(head.path))
            return
        stream.owner = call
        self.server.calls.add(call)
        if end:
            call.received_data(b"", True)

    def _call(self, stream: Stream, head: Head) -> ServerCall | None:
        methods = self.server.methods
        if methods.interceptors:
            return InterceptedCall(self, stream, head, methods)
        handler = methods.bytes_handlers.get(head.path)
        if handler is not None and self.options.compression is Compression.IDENTITY:
            return BytesCall(self, stream, head, handler)
        method = methods.find(head.path)
        return None if method is None else ServicerCall(self, stream, head, method)

    def head_too_large(self, stream: Stream) -> None:
        if stream.owner is None:
            unserved(self, stream, None, _HEAD_TOO_LARGE)
        else:
            raise StreamFault(stream.id, ErrorCode.ENHANCE_YOUR_CALM, "trailers too large")

    def going_away(self) -> None:
        """The client opens no more streams; it closes when the running ones end."""

    def finished(self, call: ServerCall) -> None:
        self.server.finished(call)


class NativeServer(Server):
    """HTTP/2 and gRPC on this event loop. `closed_for` counts why connections were closed from this side."""

    def __init__(self, options: ServerOptions, interceptors: Sequence[Interceptor] = ()) -> None:
        self.options = options
        self.methods = Registry(self, interceptors)
        self.calls: set[ServerCall] = set()
        self.closed_for: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        self._listeners: list[asyncio.Server] = []
        self._connections: set[ServerProtocol] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopping = False

    @property
    def registry(self) -> Any:
        return self.methods

    def add_bytes_handler(self, path: str, handler: BytesHandler) -> None:
        self.methods.add_bytes_handler(path, handler)

    def add_port(self, address: str) -> int:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
            listener.listen(1024)  # now, so that a second server on the port fails here
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"cannot bind {address}: {os.strerror(error.errno or errno.EIO)}") from None
        self._sockets.append(listener)
        return int(listener.getsockname()[1])

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            self._listeners.append(await loop.create_server(lambda: ServerProtocol(self), sock=listener, backlog=1024))
        self._tick()

    async def stop(self, grace_s: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        for bound in self._sockets:
            bound.close()
        for protocol in self._connections:
            protocol.connection.drain()
        await self._until_idle(grace_s)
        tasks = [call.task for call in self.calls if call.task is not None]
        for call in list(self.calls):
            call.cancel(_STOPPING)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self._close_connections()
        self._stopped.set()

    async def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        return await happened(self._stopped, timeout_s)

    async def _until_idle(self, grace_s: float) -> None:
        if not self.calls or grace_s <= 0:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            return

    def _close_connections(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for protocol in list(self._connections):
            protocol.flush()
            protocol.close()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.tick(now)
        self._ticking = loop.call_later(_TICK_S, self._tick)

    def tick(self, now: float) -> None:
        """Let connections grow old, and end calls whose request is still arriving after their deadline."""
        for protocol in list(self._connections):
            protocol.tick(now)
        for call in [call for call in self.calls if call.task is None and now > (call.deadline or now)]:
            call.fail(_TOO_LATE)

    # --- for its connections ---

    def admit(self, protocol: ServerProtocol) -> bool:
        if self._stopping or len(self._connections) >= self.options.max_connections:
            self.count("too many connections")
            return False
        self._connections.add(protocol)
        return True

    def lost(self, protocol: ServerProtocol) -> None:
        self._connections.discard(protocol)
        if protocol.connection.closed_reason is not None:
            self.count(protocol.connection.closed_reason)

    def count(self, reason: str) -> None:
        self.closed_for[reason] = self.closed_for.get(reason, 0) + 1

    def refusal(self, protocol: ServerProtocol) -> RpcError | None:
        """Why no further call is taken now."""
        if self._stopping:
            return _STOPPING
        limit = self.options.max_concurrent_calls
        busy = limit is not None and len(self.calls) >= limit
        return _BUSY if busy or protocol.connection.pending_bytes > _MAX_PENDING_BYTES else None

    def finished(self, call: ServerCall) -> None:
        self.calls.discard(call)
        if not self.calls:
            self._idle.set()
