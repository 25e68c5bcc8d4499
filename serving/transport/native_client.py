"""The native channel: one connection that carries all calls, made when needed and made again when lost."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import lru_cache
from typing import Any, cast

from serving.transport.call import Head, encode_metadata, format_timeout, request_prefix
from serving.transport.connection import Connection
from serving.transport.exchange import Exchange
from serving.transport.frames import ErrorCode
from serving.transport.hpack import encode
from serving.transport.port import Channel, ChannelOptions
from serving.transport.status import Code, Metadata, RpcError
from serving.transport.streams import ConnectionLimits, Stream
from serving.transport.stub_channel import StubChannel

_CONNECT_S = 20.0
_FIRST_BACKOFF_S = 0.1


@lru_cache(maxsize=256)
def _timeout_field(timeout_s: float) -> bytes:
    return encode(((b"grpc-timeout", format_timeout(timeout_s)),))


class ClientProtocol(asyncio.Protocol):
    """One connection to the target; all calls of one turn of the loop leave in one write."""

    def __init__(self, keepalive_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(self, Head, ConnectionLimits(), self.loop.time, client=True)
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._keepalive_s = keepalive_s
        self._transport: asyncio.Transport | None = None
        self._heard_at = self.loop.time()
        self._ticking: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        connection = self.connection
        lost = self._transport is None or connection.closed_reason is not None
        return not (lost or connection.draining or connection.exhausted)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ticking = self.loop.call_later(self._keepalive_s, self._tick)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        self.connection.receive(data)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._ticking is not None:
            self._ticking.cancel()
        self.connection.lost("the peer closed the connection")
        self._admit_waiting(len(self.waiting))

    def flush(self) -> None:
        output = self.connection.take_output()
        if self._transport is None:
            return
        if output:
            self._transport.write(output)
        drained = self.connection.draining and not self.connection.streams
        if drained or self.connection.closed_reason is not None:
            self._transport.close()

    def close(self) -> None:
        self.connection.close(ErrorCode.NO_ERROR, "the channel was closed")
        self.flush()

    def call_ended(self) -> None:
        if self.waiting:
            self._admit_waiting(1)
        if self.connection.draining:
            self.loop.call_soon(self.flush)

    @property
    def full(self) -> bool:
        return len(self.connection.streams) >= self.connection.peer_max_streams

    def _admit_waiting(self, count: int) -> None:
        while self.waiting and count:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _tick(self) -> None:
        self._ticking = self.loop.call_later(self._keepalive_s, self._tick)
        if self.loop.time() - self._heard_at < self._keepalive_s:
            return
        if self.connection.pings_unanswered and self._transport is not None:
            self._transport.abort()
        else:
            self.connection.ping()

    # --- streams.Endpoint ---

    def wake(self) -> None:
        self.loop.call_soon(self.flush)

    def opened(self, stream: Stream, head: Head, end: bool) -> None:
        """Servers open no streams towards a client that forbids pushes."""

    def head_too_large(self, stream: Stream) -> None:
        if isinstance(stream.owner, Exchange):
            stream.owner.abandon(RpcError(Code.RESOURCE_EXHAUSTED, "response headers too large"))

    def going_away(self) -> None:
        self._admit_waiting(len(self.waiting))


class NativeChannel(Channel):
    """Calls fail at once with UNAVAILABLE while the pause between two attempts to connect lasts."""

    def __init__(self, target: str, options: ChannelOptions) -> None:
        self.options = options
        self._target = target
        self._protocol: ClientProtocol | None = None
        self._connecting: asyncio.Task[ClientProtocol] | None = None
        self._backoff_s = 0.0
        self._retry_at = 0.0
        self._refusal = RpcError(Code.UNAVAILABLE, f"failed to connect to {target}")
        self._prefixes: dict[str, bytes] = {}
        self._closed = False
        self._stub_channel = StubChannel(self)

    @property
    def stub_channel(self) -> Any:
        return self._stub_channel

    async def unary(self, path: str, request: bytes, timeout_s: float | None, metadata: Metadata = ()) -> bytes:
        exchange = Exchange(self.options, timeout_s)
        try:
            await self.begin(exchange, self.request_block(path, timeout_s, metadata))
            exchange.send(request, end=True)
            return await exchange.only()
        finally:
            if not exchange.done:
                exchange.abandon(RpcError(Code.CANCELLED, "cancelled"))

    async def close(self) -> None:
        self._closed = True
        self._refusal = RpcError(Code.CANCELLED, "the channel is closed")
        if self._connecting is not None:
            self._connecting.cancel()
        if self._protocol is not None:
            self._protocol.close()

    def request_block(self, path: str, timeout_s: float | None, metadata: Metadata) -> bytes:
        block = self._prefixes.get(path)
        if block is None:
            block = self._prefixes[path] = request_prefix(path, self._target)
        if timeout_s is not None:
            block += _timeout_field(timeout_s)
        return block + encode(encode_metadata(metadata)) if metadata else block

    async def begin(self, exchange: Exchange, block: bytes) -> None:
        """Give the call a stream, once there is a connection with room. Raises RpcError."""
        protocol = self._protocol
        if protocol is None or not protocol.usable or protocol.full:
            try:
                async with asyncio.timeout_at(exchange.deadline):
                    protocol = await self._free()
            except TimeoutError:
                raise RpcError(Code.DEADLINE_EXCEEDED, "deadline exceeded before a connection was ready") from None
        exchange.on_done.append(protocol.call_ended)
        exchange.begin(protocol.connection, block)

    async def _free(self) -> ClientProtocol:
        """A usable connection with room for one more stream."""
        while True:
            protocol = await self._connected()
            if not protocol.full:
                return protocol
            waiter = protocol.loop.create_future()
            protocol.waiting.append(waiter)
            await waiter

    async def _connected(self) -> ClientProtocol:
        if self._protocol is not None and self._protocol.usable:
            return self._protocol
        if self._closed or asyncio.get_running_loop().time() < self._retry_at:
            raise RpcError(self._refusal.code, self._refusal.details)
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._connect_ended)
        return await asyncio.shield(self._connecting)

    def _connect_ended(self, task: asyncio.Task[ClientProtocol]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # seen here too: its waiters may all be gone

    async def _connect(self) -> ClientProtocol:
        loop = asyncio.get_running_loop()
        host, _, port = self._target.rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, protocol = await loop.create_connection(
                    lambda: ClientProtocol(self.options.keepalive_s), host.strip("[]"), int(port)
                )
        except OSError as error:
            self._backoff_s = min(self.options.backoff_max_s, max(_FIRST_BACKOFF_S, self._backoff_s * 2))
            self._retry_at = loop.time() + self._backoff_s
            why = error.strerror or type(error).__name__
            self._refusal = RpcError(Code.UNAVAILABLE, f"failed to connect to {self._target}: {why}")
            raise RpcError(self._refusal.code, self._refusal.details) from None
        self._backoff_s = self._retry_at = 0.0
        self._protocol = protocol
        return protocol
