"""The life of one serving process: bind, start, become ready, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from serving import health, ports_file, reflection
from serving.handover import Handover, Progress
from serving.health import Health
from serving.settings import Settings
from serving.transport import Server, ServerCredentials
from serving.transport.listening import bound_port

logger = logging.getLogger(__name__)

NOTHING_HANDED = Handover()


class NodeState(Enum):
    """NEW -> STARTING (ports, parts) -> LOADING (answers health and admin) -> READY -> DRAINING -> STOPPED."""

    NEW = "new"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


_NEXT: dict[NodeState, frozenset[NodeState]] = {
    NodeState.NEW: frozenset({NodeState.STARTING}),
    NodeState.STARTING: frozenset({NodeState.LOADING, NodeState.STOPPED}),
    NodeState.LOADING: frozenset({NodeState.READY, NodeState.DRAINING}),
    NodeState.READY: frozenset({NodeState.DRAINING}),
    NodeState.DRAINING: frozenset({NodeState.STOPPED}),
    NodeState.STOPPED: frozenset(),
}


class Listener(Protocol):
    """A server of any protocol."""

    def add_port(self, address: str, credentials: ServerCredentials | None = None) -> int: ...

    def add_socket(self, listening: socket.socket, credentials: ServerCredentials | None = None) -> None: ...

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Port:
    """A server, the address from the settings, and the full names of the gRPC services registered on it."""

    name: str
    server: Listener
    address: str
    services: tuple[str, ...] = ()
    credentials: ServerCredentials | None = None


async def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Something with a life of its own. Parts start in order before the first call arrives, and stop in reverse order
    after the last one has left. `stop` is called only after `start` succeeded."""

    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing


_FOR_THE_READY = {"service", "party", "admin", "single"}


class Node:
    """Owns the servers and parts that assembly built. `run` once; `ask_to_stop` from a signal handler.

    `ready` returns when every wanted model is loaded or known not to load; until then health says NOT_SERVING.
    """

    def __init__(
        self, settings: Settings, ports: tuple[Port, ...], parts: tuple[Part, ...], ready: Callable[[], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._parts = parts
        self._ready = ready
        self._health = Health()
        self._stop = asyncio.Event()
        self._state = NodeState.NEW
        self._handover = NOTHING_HANDED
        self._late: list[Port] = []
        """Ports whose sockets other workers serve too: calls go to those that are ready."""
        self.addresses: dict[str, str] = {}
        """Where the ports are bound, by name."""

    @property
    def _grpc_servers(self) -> list[Server]:
        return [port.server for port in self._ports if isinstance(port.server, Server)]

    @property
    def state(self) -> NodeState:
        return self._state

    def ask_to_stop(self) -> None:
        self._stop.set()

    async def run(self, handover: Handover = NOTHING_HANDED) -> None:
        """Returns after a clean stop. Raises OSError when a port is taken, and whatever a part raises at start."""
        self._handover = handover
        self._enter(NodeState.STARTING)
        async with AsyncExitStack() as stack:
            stack.callback(self._enter, NodeState.STOPPED)
            await self._bind(stack)
            await self._start(stack)
            await self._serve()

    async def _bind(self, stack: AsyncExitStack) -> None:
        handed = self._handover.taken()
        for port in self._ports:
            stack.push_async_callback(port.server.stop, 0)
            if port.name in handed:
                if port.name in _FOR_THE_READY:
                    self._late.append(port)
                bound = bound_port(handed[port.name])
                port.server.add_socket(handed[port.name], port.credentials)
            else:
                bound = port.server.add_port(port.address, port.credentials)
            self.addresses[port.name] = f"{port.address.rpartition(':')[0]}:{bound}"
        for port in self._ports:
            if isinstance(port.server, Server):
                services = (*port.services, health.SERVICE)
                self._health.register(port.server, (*services, *reflection.SERVICES))
                reflection.register(port.server, services)

    async def _start(self, stack: AsyncExitStack) -> None:
        for part in self._parts:
            await part.start()
            stack.push_async_callback(part.stop)
        for port in self._ports:
            if port not in self._late:
                await port.server.start()
        state_dir = Path(self._settings.state_dir)
        await asyncio.to_thread(ports_file.write, state_dir, self.addresses)
        self._enter(NodeState.LOADING)
        self._handover.tell(Progress.LISTENING)
        stack.push_async_callback(self._drain)
        logger.info("listening: %s", ", ".join(f"{name} {address}" for name, address in self.addresses.items()))

    async def _serve(self) -> None:
        ready = asyncio.ensure_future(self._ready())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                for port in self._late:
                    await port.server.start()
                self._enter(NodeState.READY)
                self._health.serving()
                self._handover.tell(Progress.READY)
                logger.info("ready")
                await stop
        finally:
            ready.cancel()
            stop.cancel()

    async def _drain(self) -> None:
        self._enter(NodeState.DRAINING)
        self._health.draining()
        grace_s = self._settings.limits.drain_s
        logger.info("draining for up to %g s", grace_s)
        await asyncio.gather(*(server.stop(grace_s) for server in self._grpc_servers))
        # Probes and Prometheus are answered to the end: the exit stack stops their port.

    def _enter(self, state: NodeState) -> None:
        if state not in _NEXT[self._state]:
            raise RuntimeError(f"node cannot go from {self._state.name} to {state.name}")
        self._state = state
