"""grpc.health.v1 on every port: NOT_SERVING until the node is ready, and again when it drains."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.transport import Server

_STATUS = health_pb2.HealthCheckResponse


class Health:
    """One answer for the node (the empty name) and for each gRPC service it offers."""

    def __init__(self, services: Iterable[str]) -> None:
        self._names = ("", *services)
        self._servicer = health.aio.HealthServicer()

    async def register(self, servers: Iterable[Server]) -> None:
        for server in servers:
            health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server.registry)
        await self._set(_STATUS.NOT_SERVING)

    async def serving(self) -> None:
        await self._set(_STATUS.SERVING)

    async def draining(self) -> None:
        """Final: nothing that is set later counts."""
        await self._servicer.enter_graceful_shutdown()

    async def _set(self, status: int) -> None:
        for name in self._names:
            await self._servicer.set(name, status)
