"""The servers of a node by who calls them, and the ports that they are bound to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from serving.http_port import HttpServer
from serving.node import Listener, Port
from serving.readings import connection_metrics
from serving.security import port_credentials
from serving.settings import Settings
from serving.telemetry.exposition import Reading
from serving.traced.tracing import Untraced
from serving.transport import Server, ServerOptions, server

Names = Mapping[str, tuple[str, ...]]
"""Of gRPC services, by the port for those who call them."""


@dataclass(frozen=True, slots=True)
class Servers:
    """For callers, other parties and operators: one each, or the same one for all where the settings have
    `ports.single`. Who may call a method does not depend on it."""

    service: Server
    party: Server
    operator: Server

    @property
    def are_one(self) -> bool:
        return self.operator is self.service

    def by_port(self) -> dict[str, Server]:
        """By the names that ports have in the settings."""
        if self.are_one:
            return {"single": self.service}
        return {"service": self.service, "party": self.party, "admin": self.operator}

    def readings(self) -> tuple[Reading, ...]:
        return (partial(connection_metrics, self.by_port()),)


def make_servers(settings: Settings, tracing: Untraced) -> Servers:
    """Call it on the running event loop."""
    limits = settings.limits
    callers = ServerOptions(max_receive_bytes=limits.max_request_bytes, max_concurrent_calls=limits.concurrent_calls)
    others = ServerOptions(max_receive_bytes=limits.max_request_bytes)
    service = tracing.server(server(settings.transport, callers))
    if settings.ports.single:
        return Servers(service, service, service)
    party, operator = (tracing.server(server(settings.transport, others)) for _ in range(2))
    return Servers(service, party, operator)


def ports_of(settings: Settings, servers: Servers, names: Names, http: Any) -> tuple[Port, ...]:
    """`http`: the ASGI application of the HTTP port. Reads certificates. Raises CredentialsError."""
    listeners: dict[str, Listener] = {**servers.by_port(), "http": HttpServer(http)}
    if servers.are_one:
        names = {"single": tuple(dict.fromkeys(name for each in names.values() for name in each))}
    return tuple(
        Port(name, listeners[name], address, names.get(name, ()), port_credentials(settings, name))
        for name, address in settings.ports.bound().items()
    )
