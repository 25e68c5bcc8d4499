"""One place in a channel's pool: a connection made when needed, made again when lost, left alone while it rests."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from serving.transport.backoff import Backoff
from serving.transport.client_socket import ClientProtocol
from serving.transport.listening import UNIX
from serving.transport.port import ChannelOptions
from serving.transport.status import Code, RpcError

_CONNECT_S = 20.0
_CLOSE_S = 1.0
_PROOF_S = 0.1
_GOODBYE_S = 0.1
"""For a server to answer the end of TLS; some never do."""


class Link:
    """Calls that come while it rests after a failure get the reason of the failure, as UNAVAILABLE."""

    def __init__(self, target: str, options: ChannelOptions) -> None:
        self.protocol: ClientProtocol | None = None
        self._target = target
        self._keepalive_s = options.keepalive_s
        self._credentials = options.credentials
        self._backoff = Backoff(options.backoff_max_s, asyncio.get_running_loop().time)
        self._unjudged: ClientProtocol | None = None
        self._waiting = 0
        self._connecting: asyncio.Task[ClientProtocol] | None = None
        self._reason = ""
        self.turned_away = False
        """Whether the last connection that ended at once was ended by a server that takes no more calls."""

    @property
    def load(self) -> int:
        """Calls that run, wait for room or wait for the connection."""
        return self._waiting + (self.protocol.load if self.protocol is not None else 0)

    @property
    def rest_s(self) -> float:
        """How long no attempt to connect is made."""
        return 0.0 if self.protocol is not None and self.protocol.usable else self._backoff.left_s()

    async def free(self) -> ClientProtocol:
        """A usable connection with room for one more stream. Raises RpcError."""
        while True:
            protocol = await self._connected()
            if not protocol.full:
                return protocol
            await protocol.room()

    async def _connected(self) -> ClientProtocol:
        if self.protocol is not None and self.protocol.usable:
            return self.protocol
        self._judge()
        if self._backoff.left_s():
            raise RpcError(Code.UNAVAILABLE, self._reason)
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._connect_ended)
        self._waiting += 1
        try:
            protocol = await self._shared(self._connecting)
        finally:
            self._waiting -= 1
        if not protocol.usable:
            raise RpcError(Code.UNAVAILABLE, _why_lost(protocol))
        return protocol

    def _judge(self) -> None:
        """A connection that ended at once was none: a server that accepts and closes is left alone like a dead one."""
        ended, self._unjudged = self._unjudged, None
        if ended is None:
            return
        if ended.lived_s >= _PROOF_S:
            self._backoff.succeeded()
        else:
            self._backoff.failed()
            self._reason = _why_lost(ended)
            self.turned_away = ended.connection.draining

    async def _shared(self, connecting: asyncio.Task[ClientProtocol]) -> ClientProtocol:
        """The outcome of an attempt that others wait for too."""
        await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise RpcError(Code.CANCELLED, "the channel is closed")
        return connecting.result()

    def _connect_ended(self, task: asyncio.Task[ClientProtocol]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # seen here too: its waiters may all be gone

    async def _connect(self) -> ClientProtocol:
        try:
            async with asyncio.timeout(_CONNECT_S):
                protocol = await self._open()
        except OSError as error:
            self._backoff.failed()
            self.turned_away = False
            why = getattr(error, "verify_message", "") or error.strerror or type(error).__name__
            self._reason = f"failed to connect to {self._target}: {why}"
            raise RpcError(Code.UNAVAILABLE, self._reason) from None
        self.protocol = self._unjudged = protocol
        return protocol

    async def _open(self) -> ClientProtocol:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._target.startswith(UNIX):
            path = self._target.removeprefix(UNIX)
            _, protocol = await loop.create_unix_connection(self._protocol, path, **await self._tls("localhost"))
        else:
            host, _, port = self._target.rpartition(":")
            host = host.strip("[]")
            _, protocol = await loop.create_connection(self._protocol, host, int(port), **await self._tls(host))
        if not protocol.speaks_http2:
            protocol.abort()
            raise OSError(errno.EPROTO, "the server does not agree on HTTP/2 (ALPN h2)")
        return protocol

    def _protocol(self) -> ClientProtocol:
        return ClientProtocol(self._keepalive_s)

    async def _tls(self, host: str) -> dict[str, Any]:
        credentials = self._credentials
        if credentials is None:
            return {}
        await asyncio.to_thread(credentials.refresh)
        return {
            "ssl": credentials.loaded.context,
            "server_hostname": credentials.server_name or host,
            "ssl_shutdown_timeout": _GOODBYE_S,
        }

    async def close(self, grace_s: float) -> None:
        """Let running calls end for this long, then end them."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self.protocol is None:
            return
        self.protocol.drain()
        if not await _gone(self.protocol, grace_s):
            self.protocol.close()
            if not await _gone(self.protocol, _CLOSE_S):
                self.protocol.abort()
                await self.protocol.lost.wait()


def _why_lost(protocol: ClientProtocol) -> str:
    return f"connection lost: {protocol.connection.closed_reason or 'the server takes no calls'}"


async def _gone(protocol: ClientProtocol, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await protocol.lost.wait()
    except TimeoutError:
        return False
