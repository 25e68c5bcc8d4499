"""The native server: its ports, its connections, its start and its graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from serving.transport.acceptor import Acceptor, Arriving
from serving.transport.aio_server import happened
from serving.transport.closing import Closing, closing_of
from serving.transport.connection import Connection
from serving.transport.credentials import ServerCredentials
from serving.transport.inflation import Turn
from serving.transport.intake import Store
from serving.transport.listening import bound_port, listen, remove_path
from serving.transport.methods import Registry
from serving.transport.port import BytesHandler, Interceptor, Server, ServerOptions
from serving.transport.server_call import ServerCall
from serving.transport.server_socket import ServerProtocol
from serving.transport.status import Code, RpcError

_TICK_S = 1.0
_INFLATERS = 2
_ROUND_TRIP_S = 1.0
_MAX_PENDING_BYTES = 16 << 20
_BUSY = RpcError(Code.RESOURCE_EXHAUSTED, "too many calls at once", (("grpc-retry-pushback-ms", "50"),))
_STOPPING = RpcError(Code.UNAVAILABLE, "the server is stopping")


class NativeServer(Server):
    """HTTP/2 and gRPC on this event loop. `closed_for` counts connections closed from this side, by `Closing`."""

    def __init__(self, options: ServerOptions, interceptors: Sequence[Interceptor] = ()) -> None:
        self.options = options
        self.threads: Executor = ThreadPoolExecutor(options.max_threads, "servicer")
        self.inflaters: Executor = ThreadPoolExecutor(_INFLATERS, "inflate")
        self.turn = Turn()
        self.store = Store(options.max_kept_bytes)
        self.methods = Registry(self, interceptors)
        self.calls: set[ServerCall] = set()
        self.closed_for: dict[str, int] = {}
        self.arriving: Arriving = {}
        self._sockets: list[tuple[socket.socket, ServerCredentials | None]] = []
        self._acceptors: list[Acceptor] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._connections: set[ServerProtocol] = set()
        self._farewell: Callable[[Connection], None] | None = None
        """What a server that stops tells its connections, those too that come while it does."""
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
            context = None if credentials is None else credentials.context
            self._acceptors.append(Acceptor(self, listening, context))
        self._tick()

    async def stop(self, grace_s: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        for listening, _ in self._sockets:
            remove_path(listening)
        for acceptor in self._acceptors:
            acceptor.close()
        for listening, _ in self._sockets:
            listening.close()
        await self._drain(grace_s)
        tasks = [call.task for call in self.calls if call.task is not None]
        for call in list(self.calls):
            call.cancel(_STOPPING)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        self.threads.shutdown(wait=False)
        self.inflaters.shutdown(wait=False)
        await self._close_connections()
        self._stopped.set()

    async def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        return await happened(self._stopped, timeout_s)

    async def _drain(self, grace_s: float) -> None:
        """Let every client know before its last call, then wait for those that run."""
        over_at = asyncio.get_running_loop().time() + grace_s
        if grace_s > 0:
            self._tell_all(Connection.drain)
            await self._until(self._all_know, min(grace_s, _ROUND_TRIP_S))
        self._tell_all(Connection.last_call)
        await self._until(self._all_answered, over_at - asyncio.get_running_loop().time())

    def _tell_all(self, farewell: Callable[[Connection], None]) -> None:
        self._farewell = farewell
        for protocol in list(self._connections):
            farewell(protocol.connection)

    def _all_know(self) -> bool:
        return not self.arriving and all(protocol.connection.draining for protocol in self._connections)

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
        for handshake in self.arriving.values():
            if handshake is not None:
                handshake.cancel()
        for protocol in list(self._connections):
            protocol.flush()
            protocol.close()
        await self._until(self._all_gone, _ROUND_TRIP_S)
        for protocol in list(self._connections):
            protocol.abort()
        await self._until(self._all_gone, _ROUND_TRIP_S)

    def _all_gone(self) -> bool:
        return not (self._connections or self.arriving)

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

    async def _refresh(self) -> None:
        """New handshakes see new certificates; connections keep theirs."""
        for credentials in {found for _, found in self._sockets if found is not None}:
            await asyncio.to_thread(credentials.refresh)

    # --- for its connections ---

    def protocol(self) -> ServerProtocol:
        return ServerProtocol(self)

    def admit(self, protocol: ServerProtocol) -> None:
        self.arriving.pop(protocol, None)
        self._connections.add(protocol)
        if self._farewell is not None:
            self._farewell(protocol.connection)

    def takes_more(self) -> bool:
        room = len(self._connections) + len(self.arriving) < self.options.max_connections
        if not room:
            self.count(Closing.TOO_MANY)
        return room

    def lost(self, protocol: ServerProtocol) -> None:
        self._connections.discard(protocol)
        self.progressed()
        connection = protocol.connection
        if connection.closed_reason is not None:
            self.count(closing_of(connection.closed_reason, connection.closed_code))

    def count(self, closing: Closing) -> None:
        self.closed_for[closing.value] = self.closed_for.get(closing.value, 0) + 1

    def closings(self) -> Mapping[str, int]:
        return self.closed_for

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
