"""The face of a server that code written for `grpc.aio.server()` sees."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from serving.transport.credentials import ServerCredentials
from serving.transport.port import Server


async def happened(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Whether the event came before the time was over."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False


class AioServer(grpc.aio.Server):
    """Generated code, grpcio-health-checking and grpcio-reflection register here; the rest leads to the port."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def add_insecure_port(self, address: str) -> int:
        return self._server.add_port(address)

    def add_secure_port(self, address: str, server_credentials: Any) -> int:
        """Raises ValueError for grpc's credentials, which do not say what they hold."""
        if not isinstance(server_credentials, ServerCredentials):
            raise ValueError(f"TLS on {address} takes credentials of serving.transport, not {server_credentials!r}")
        return self._server.add_port(address, server_credentials)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace: float | None) -> None:
        await self._server.stop(grace or 0.0)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        return await self._server.wait_for_termination(timeout)
