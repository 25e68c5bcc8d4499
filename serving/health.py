"""grpc.health.v1 on every port: NOT_SERVING until the node is ready, and again when it drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.transport import Code, Server

SERVICE: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_STATUS = health_pb2.HealthCheckResponse


class Health:
    """Of one node, told to whoever asks or watches at any of its ports."""

    def __init__(self) -> None:
        self._status = _STATUS.NOT_SERVING
        self._changed = asyncio.Event()
        self._over = False

    def register(self, server: Server, services: Iterable[str]) -> None:
        """`services`: the full names of those registered on `server`, which are known there beside the empty name."""
        servicer = _PortHealth(self, frozenset(("", *services)))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server.registry)

    def serving(self) -> None:
        self._set(_STATUS.SERVING)

    def draining(self) -> None:
        """Watches end with it, so that no drain waits for them."""
        self._over = True
        self._set(_STATUS.NOT_SERVING)

    @property
    def status(self) -> Any:
        return self._status

    async def statuses(self) -> AsyncIterator[Any]:
        """The one now, then every other, until the node drains; of those that follow each other quickly the last."""
        told = None
        while True:
            changed, over = self._changed, self._over
            if self._status != told:
                told = self._status
                yield told
            if over:
                return
            await changed.wait()

    def _set(self, status: Any) -> None:
        self._status = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class _PortHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Check knows no other services; a watch of one says SERVICE_UNKNOWN, and no more: ports never gain any."""

    def __init__(self, health: Health, names: frozenset[str]) -> None:
        self._health = health
        self._names = names

    async def Check(self, request: Any, context: Any) -> Any:
        if request.service not in self._names:
            await context.abort(Code.NOT_FOUND, f"this port has no service {request.service!r}")
        return _STATUS(status=self._health.status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        del context
        known = request.service in self._names
        if not known:
            yield _STATUS(status=_STATUS.SERVICE_UNKNOWN)
        async for status in self._health.statuses():
            if known:
                yield _STATUS(status=status)
