"""An HTTP server on the node's own event loop, with the life of any other port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node listens for signals, not the port."""
        yield


class HttpServer:
    """Serves one ASGI application. `add_port`, `start`, `stop`, once each."""

    def __init__(self, application: Any) -> None:
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", server_header=False)
        self._config = config
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self._running: asyncio.Task[None] | None = None

    def add_port(self, address: str) -> int:
        """Bind `host:port` (0 = any); returns the port. Raises OSError naming the address when taken."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, int(port)), family=family, backlog=1024)
        except OSError as error:
            reason = str(error.strerror).partition(" (while")[0]
            raise OSError(error.errno, f"cannot bind {address}: {reason}") from None
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        if self._socket is not None:
            self._running = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, give running calls `grace_s`."""
        self._config.timeout_graceful_shutdown = int(grace_s)
        self._server.should_exit = True
        if self._running is not None:
            await self._running
            self._running = None
        if self._socket is not None:
            self._socket.close()
