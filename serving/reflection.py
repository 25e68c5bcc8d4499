"""grpc.reflection on every port: each lists, and describes, what it serves."""

from __future__ import annotations

from collections.abc import Iterable

from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from serving.transport import Server


def register(server: Server, services: Iterable[str]) -> None:
    """`services`: the full names of those registered on `server`, but health and reflection, which all have."""
    reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server.registry)
