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
_SHORT_REST_S = 0.35
"""The first three pauses."""
_GOODBYE_S = 0.1
"""For a server to answer the end of TLS; some never do."""


class Link:
    """Calls that come while it rests after a failure get the reason of the failure, as UNAVAILABLE. A connection counts
    once the server has said its SETTINGS: no call is sent before, so that none was served by a server that accepts and
    closes, as one does that is being replaced."""

    def __init__(self, target: str, options: ChannelOptions) -> None:
        self.protocol: ClientProtocol | None = None
        self._target = target
        self._keepalive = options.keepalive_s, options.keepalive_without_calls
        self._credentials = options.credentials
        self._backoff = Backoff(options.backoff_max_s, asyncio.get_running_loop().time)
        self._unjudged: ClientProtocol | None = None
        self._waiting = 0
        self._connecting: asyncio.Task[ClientProtocol] | None = None
        self._reason = ""
        self._turned_away = False

    @property
    def load(self) -> int:
        """Calls that run, wait for room or wait for the connection."""
        return self._waiting + (self.protocol.load if self.protocol is not None else 0)

    @property
    def rest_s(self) -> float:
        """How long no attempt to connect is made."""
        return 0.0 if self.protocol is not None and self.protocol.usable else self._backoff.left_s()

    @property
    def may_soon_serve(self) -> bool:
        """Somebody is there, who ended the last connection at once, and will soon be asked again."""
        return self._turned_away and self.rest_s <= _SHORT_REST_S

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
            self._failed(_why_lost(ended), turned_away=True)

    def _failed(self, reason: str, turned_away: bool) -> None:
        self._backoff.failed()
        self._reason = reason
        self._turned_away = turned_away

    async def _shared(self, connecting: asyncio.Task[ClientProtocol]) -> ClientProtocol:
        """The outcome of an attempt that others wait for too."""
        await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise RpcError(Code.CANCELLED, "the channel is closed")
        error = connecting.exception()
        if isinstance(error, RpcError):
            raise error.anew()
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
            why = getattr(error, "verify_message", "") or error.strerror or type(error).__name__
            self._failed(f"failed to connect to {self._target}: {why}", turned_away=False)
            raise RpcError(Code.UNAVAILABLE, self._reason) from None
        if not protocol.usable:
            self._failed(_why_lost(protocol), turned_away=True)
            raise RpcError(Code.UNAVAILABLE, self._reason)
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
        try:
            await protocol.greeted()
        except BaseException:
            protocol.abort()
            raise
        return protocol

    def _protocol(self) -> ClientProtocol:
        return ClientProtocol(*self._keepalive)

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
            await asyncio.wait((self._connecting,))
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
