"""The native channel: a pool of connections that carry all calls, each made when needed and made again when lost."""

from __future__ import annotations

import asyncio
from typing import Any

from serving.transport.call import encode_metadata, frame_message, request_prefix, timeout_field
from serving.transport.client_socket import ClientProtocol
from serving.transport.compression import GZIP_FIELD, frame_squeezed
from serving.transport.deadlines import bounded
from serving.transport.exchange import Exchange
from serving.transport.hpack import encode
from serving.transport.link import Link
from serving.transport.listening import UNIX
from serving.transport.port import Channel, ChannelOptions, Compression
from serving.transport.status import Code, Metadata, RpcError, too_large
from serving.transport.stub_channel import StubChannel
from serving.transport.unary import RefusedError, UnaryCall

_TRIES = 3
"""Of a call that the server did not begin to serve, and of connecting while a server ends connections at once."""
_EARLY_S = 0.001
"""Timers of uvloop may go off so much too soon: the pause would not be over, and the next try be none."""


class NativeChannel(Channel):
    """Calls fail at once with UNAVAILABLE while every connection of the pool rests after a failure; short rests are
    waited out where there is a server, which may be about to be replaced by another."""

    def __init__(self, target: str, options: ChannelOptions) -> None:
        self.options = options
        self._loop = asyncio.get_running_loop()
        secure = options.credentials
        self._scheme = b"http" if secure is None else b"https"
        self._authority = (secure and secure.server_name) or ("localhost" if target.startswith(UNIX) else target)
        self._links = [Link(target, options) for _ in range(options.connections)]
        self._prefixes: dict[str, bytes] = {}
        self._closed = False
        self._retrying: set[asyncio.Task[None]] = set()

    @property
    def stub_channel(self) -> Any:
        return StubChannel(self)

    async def unary(self, path: str, request: bytes, timeout_s: float | None, metadata: Metadata = ()) -> bytes:
        options, timeout_s = self.options, bounded(timeout_s)
        deadline = None if timeout_s is None else self._loop.time() + timeout_s
        block = self.request_block(path, timeout_s, metadata)
        if len(request) > options.max_send_bytes:
            raise too_large(len(request), options.max_send_bytes)
        if options.compression is Compression.IDENTITY:
            framed = frame_message(request)
        else:
            block += GZIP_FIELD
            framed = await frame_squeezed(request)
        for _ in range(_TRIES):
            try:
                return await self._unary(deadline, block, framed)
            except RefusedError:
                continue
        raise RpcError(Code.UNAVAILABLE, "the server refused the call again and again")

    async def _unary(self, deadline: float | None, block: bytes, framed: bytes) -> bytes:
        protocol = self._ready()
        if protocol is None:
            protocol = await asyncio.ensure_future(self._ready_by(deadline, waits=False))
        call = UnaryCall(protocol, deadline, self.options.max_receive_bytes)
        try:
            return await call.begin(block, framed)
        except asyncio.CancelledError:
            call.abandon(RpcError(Code.CANCELLED, "cancelled"))
            raise
        finally:
            del call  # whose reply may be the error that goes through this frame

    async def close(self, grace_s: float = 0.0) -> None:
        self._closed = True
        await asyncio.gather(*(link.close(grace_s) for link in self._links))

    def request_block(self, path: str, timeout_s: float | None, metadata: Metadata) -> bytes:
        block = self._prefixes.get(path)
        if block is None:
            block = self._prefixes[path] = request_prefix(path, self._authority, self._scheme)
        if timeout_s is not None:
            block += timeout_field(timeout_s)
        return block + encode(encode_metadata(metadata)) if metadata else block

    async def begin(self, exchange: Exchange, block: bytes, waits: bool = False) -> None:
        """Give the call a stream, once there is a connection with room; `waits` through failures. Raises RpcError."""
        exchange.retry = self._retry
        await self._begin(exchange, block, waits)

    async def _begin(self, exchange: Exchange, block: bytes, waits: bool) -> None:
        protocol = self._ready() or await self._ready_by(exchange.deadline, waits)
        if exchange.done:  # the room that it waited for is another's
            protocol.call_ended()
            return
        exchange.on_done.append(protocol.call_ended)
        exchange.begin(protocol.connection, block)
        if exchange.deadline is not None:
            protocol.deadlines.watch(exchange.deadline)

    def _ready(self) -> ClientProtocol | None:
        """The connection that a call made now should use, if there is one with room."""
        protocol = self._least_busy().protocol
        if protocol is None or self._closed or not protocol.usable or protocol.full:
            return None
        return protocol

    async def _ready_by(self, deadline: float | None, waits: bool) -> ClientProtocol:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._free(waits)
        except TimeoutError:
            raise RpcError(Code.DEADLINE_EXCEEDED, "deadline exceeded before a connection was ready") from None

    def _retry(self, exchange: Exchange, block: bytes) -> None:
        """Start a call again that a server refused before it did anything with it."""
        running = asyncio.ensure_future(self._begin_again(exchange, block))
        self._retrying.add(running)
        running.add_done_callback(self._retrying.discard)

    async def _begin_again(self, exchange: Exchange, block: bytes) -> None:
        try:
            await self._begin(exchange, block, waits=False)
        except RpcError as error:
            exchange.finish(error)

    def _least_busy(self) -> Link:
        """The first of the least busy links that may be used now; of all, when none may."""
        links = self._links
        if len(links) == 1:
            return links[0]
        return min([link for link in links if not link.rest_s] or links, key=lambda link: link.load)

    async def _free(self, waits: bool) -> ClientProtocol:
        tries = 0
        while not self._closed:
            link = self._least_busy()
            try:
                return await link.free()
            except RpcError as error:
                rest_s = min(link.rest_s for link in self._links)
                tries += 1
                patient = waits or not rest_s or (link.may_soon_serve and tries < _TRIES)
                if error.code is not Code.UNAVAILABLE or not patient:
                    raise
            await asyncio.sleep(rest_s + _EARLY_S)
        raise RpcError(Code.CANCELLED, "the channel is closed")
