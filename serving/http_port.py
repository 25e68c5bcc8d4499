"""An HTTP server on the node's own event loop, with the life of any other port."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from serving.transport import ServerCredentials
from serving.transport.listening import bound_port, listen

_TICKS = 10
"""Between looks at the certificates; uvicorn ticks ten times a second."""


class _Server(uvicorn.Server):
    credentials: ServerCredentials | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node listens for signals, not the port."""
        yield

    async def on_tick(self, counter: int) -> bool:
        if self.credentials is not None and counter % _TICKS == 0:
            await asyncio.to_thread(self.credentials.refresh)
        return await super().on_tick(counter)


class HttpServer:
    """Serves one ASGI application. `add_port`, `start`, `stop`, once each."""

    def __init__(self, application: Any) -> None:
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", server_header=False)
        self._config = config
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self._running: asyncio.Task[None] | None = None

    def add_port(self, address: str, credentials: ServerCredentials | None = None) -> int:
        """Bind `host:port` (0 = any); returns the port. Raises OSError naming the address when taken."""
        listening = listen(address)
        self.add_socket(listening, credentials)
        return bound_port(listening)

    def add_socket(self, listening: socket.socket, credentials: ServerCredentials | None = None) -> None:
        """Take calls from a socket that listens already, and own it."""
        self._socket = listening
        if credentials is not None:
            self._config.load()
            self._config.ssl = credentials.context
            self._server.credentials = credentials

    async def start(self) -> None:
        if self._socket is not None:
            self._running = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, give running calls `grace_s`, at least a second: uvicorn calls none at all an
        error."""
        self._config.timeout_graceful_shutdown = max(1, math.ceil(grace_s))
        self._server.should_exit = True
        if self._running is not None:
            await self._running
            self._running = None
        if self._socket is not None:
            self._socket.close()
