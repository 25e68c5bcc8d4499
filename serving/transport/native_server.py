"""The native server: its ports, its connections, its start and its graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

from serving.transport.aio_server import happened
from serving.transport.credentials import ServerCredentials
from serving.transport.listening import bound_port, listen, remove_path
from serving.transport.methods import Registry
from serving.transport.port import BytesHandler, Interceptor, Server, ServerOptions
from serving.transport.server_call import ServerCall
from serving.transport.server_socket import ServerProtocol
from serving.transport.status import Code, RpcError
from serving.transport.watch import HANDSHAKE_S

_TICK_S = 1.0
_ROUND_TRIP_S = 1.0
_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 2
"""By asyncio, in one turn of the loop: a flood of new connections must not hold up those that are served."""
_TURNS_TO_ACCEPT = 4
"""Of the loop, after which what was accepted before the sockets were closed is a connection."""
_MAX_PENDING_BYTES = 16 << 20
_BUSY = RpcError(Code.RESOURCE_EXHAUSTED, "too many calls at once", (("grpc-retry-pushback-ms", "50"),))
_STOPPING = RpcError(Code.UNAVAILABLE, "the server is stopping")


class NativeServer(Server):
    """HTTP/2 and gRPC on this event loop. `closed_for` counts why connections were closed from this side."""

    def __init__(self, options: ServerOptions, interceptors: Sequence[Interceptor] = ()) -> None:
        self.options = options
        self.methods = Registry(self, interceptors)
        self.calls: set[ServerCall] = set()
        self.closed_for: dict[str, int] = {}
        self._sockets: list[tuple[socket.socket, ServerCredentials | None]] = []
        self._listeners: list[asyncio.Server] = []
        self._handshakes: dict[ServerProtocol, float] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._connections: set[ServerProtocol] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopping = False

    @property
    def registry(self) -> Any:
        return self.methods

    def add_bytes_handler(self, path: str, handler: BytesHandler) -> None:
        self.methods.add_bytes_handler(path, handler)

    def add_port(self, address: str, credentials: ServerCredentials | None = None) -> int:
        listening = listen(address)
        self.add_socket(listening, credentials)
        return bound_port(listening)

    def add_socket(self, listening: socket.socket, credentials: ServerCredentials | None = None) -> None:
        self._sockets.append((listening, credentials))

    async def start(self) -> None:
        for listening, credentials in self._sockets:
            self._listeners.append(await self._serve(listening, credentials))
        self._tick()

    async def _serve(self, listening: socket.socket, credentials: ServerCredentials | None) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        create: Any = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        tls = {} if credentials is None else {"ssl": credentials.context, "ssl_handshake_timeout": HANDSHAKE_S}
        accepts = self._accepts if tls else self._accepts_at_once
        server: asyncio.Server = await create(accepts, sock=listening, backlog=_ACCEPTED_AT_ONCE, **tls)
        listening.listen(_BACKLOG)
        return server

    def _accepts_at_once(self) -> ServerProtocol:
        return ServerProtocol(self)

    def _accepts(self) -> ServerProtocol:
        """What comes of the handshake is seen by `admit`, or else by `tick`."""
        protocol = ServerProtocol(self)
        self._handshakes[protocol] = asyncio.get_running_loop().time()
        return protocol

    async def stop(self, grace_s: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        await self._stop_listening()
        await self._drain(grace_s)
        tasks = [call.task for call in self.calls if call.task is not None]
        for call in list(self.calls):
            call.cancel(_STOPPING)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await self._close_connections()
        self._stopped.set()

    async def _stop_listening(self) -> None:
        """In this order: asyncio forgets to close what it has accepted and not yet made a transport of when its server
        is closed (`Server._attach` fails). uvloop has no such moment, and no reader here."""
        loop = asyncio.get_running_loop()
        for listening, _ in self._sockets:
            remove_path(listening)
            loop.remove_reader(listening)
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        for listener in self._listeners:
            listener.close()
        for listening, _ in self._sockets:
            listening.close()

    async def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        return await happened(self._stopped, timeout_s)

    async def _drain(self, grace_s: float) -> None:
        """Let every client know before its last call, then wait for those that run."""
        over_at = asyncio.get_running_loop().time() + grace_s
        if grace_s > 0:
            for protocol in self._connections:
                protocol.connection.drain()
            await self._until(self._all_know, min(grace_s, _ROUND_TRIP_S))
        for protocol in list(self._connections):
            protocol.connection.last_call()
        await self._until(self._all_answered, over_at - asyncio.get_running_loop().time())

    def _all_know(self) -> bool:
        return all(protocol.connection.draining for protocol in self._connections)

    def _all_answered(self) -> bool:
        return not self.calls and not any(protocol.connection.pending_bytes for protocol in self._connections)

    async def _until(self, reached: Callable[[], bool], within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not reached():
                    self._progress.clear()
                    await self._progress.wait()

    async def _close_connections(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for protocol in list(self._connections):
            protocol.flush()
            protocol.close()
        await self._until(lambda: not self._connections, _ROUND_TRIP_S)
        for protocol in list(self._connections):
            protocol.abort()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.tick(now)
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._refresh())
        self._ticking = loop.call_later(_TICK_S, self._tick)

    def tick(self, now: float) -> None:
        """Let connections grow old."""
        for protocol in list(self._connections):
            protocol.tick(now)
        for protocol in [one for one, since in self._handshakes.items() if now - since > HANDSHAKE_S + _TICK_S]:
            del self._handshakes[protocol]
            self.count("TLS handshake failed or slow")

    async def _refresh(self) -> None:
        """New handshakes see new certificates; connections keep theirs."""
        for credentials in {found for _, found in self._sockets if found is not None}:
            await asyncio.to_thread(credentials.refresh)

    # --- for its connections ---

    def admit(self, protocol: ServerProtocol) -> bool:
        self._handshakes.pop(protocol, None)
        if len(self._connections) >= self.options.max_connections:
            self.count("too many connections")
            return False
        self._connections.add(protocol)
        return True

    def begun(self, protocol: ServerProtocol) -> None:
        """One that was accepted while the server stops is told so: its calls may go elsewhere, as nothing was done."""
        if self._stopping:
            protocol.connection.last_call()

    def lost(self, protocol: ServerProtocol) -> None:
        self._connections.discard(protocol)
        self.progressed()
        if protocol.connection.closed_reason is not None:
            self.count(protocol.connection.closed_reason)

    def count(self, reason: str) -> None:
        self.closed_for[reason] = self.closed_for.get(reason, 0) + 1

    def refusal(self, protocol: ServerProtocol) -> RpcError | None:
        """Why no further call is taken now."""
        limit = self.options.max_concurrent_calls
        busy = limit is not None and len(self.calls) >= limit
        return _BUSY if busy or protocol.connection.waits_for_more_than(_MAX_PENDING_BYTES) else None

    def finished(self, call: ServerCall) -> None:
        self.calls.discard(call)
        if self._stopping:
            self.progressed()

    def progressed(self) -> None:
        """Something happened that `stop` may be waiting for."""
        self._progress.set()
