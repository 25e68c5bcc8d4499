"""The port of the transport: what every implementation offers. Chosen by `transport.server` and `transport.channel`.

Servers take generated servicers (`add_XServicer_to_server(servicer, server.registry)`) and, for hot unary methods, a
bytes handler that sees the serialised request and returns the serialised reply.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from serving.transport.credentials import ChannelCredentials, ServerCredentials
from serving.transport.status import Metadata


class Transport(Enum):
    """The implementations of this port."""

    GRPCIO = "grpcio"
    NATIVE = "native"


class Compression(Enum):
    """How messages that leave are compressed; those that arrive may always be gzip."""

    IDENTITY = "identity"
    GZIP = "gzip"


class Call(Protocol):
    """What a bytes handler may ask about its call."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""

    def metadata(self) -> Metadata:
        """The caller's metadata; decoded when asked."""

    def value_of(self, key: str) -> str:
        """The first value of one key of it, of a key for text; "" without one. Costs nearly nothing."""

    def peer(self) -> str:
        """The caller's address, for logs."""

    def peer_identities(self) -> tuple[str, ...]:
        """Names in the caller's verified certificate; empty without one."""

    def set_trailing_metadata(self, metadata: Metadata) -> None: ...


BytesHandler = Callable[[bytes, Call], bytes | Awaitable[bytes]]
"""From a serialised request to the reply: at once, or later. A promise costs least, then a future, then a coroutine,
which needs a task; each is cancelled when the call ends early."""


class Interceptor(Protocol):
    """What grpc.aio calls a ServerInterceptor. Interceptors see every call, the first outermost."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The method handler to use: that of `await continuation(handler_call_details)`, perhaps with another
        behaviour.
        None, or an RpcError raised, refuses the call."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits of one server. Sizes in bytes. Servicers' plain functions run on up to `max_threads` of its own, and wait
    for one; `max_kept_bytes` is for requests that have not come to their end and for inflated ones, of all connections;
    `compression` is for replies to callers that accept it."""

    max_receive_bytes: int = 4 << 20
    max_send_bytes: int = 64 << 20
    max_concurrent_calls: int | None = None
    max_connections: int = 10_000
    max_threads: int = 32
    max_kept_bytes: int = 256 << 20
    keepalive_s: float = 20.0
    compression: Compression = Compression.IDENTITY


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Limits of one channel. A server that is silent for `keepalive_s` is asked whether it is there while a call runs,
    and otherwise if `keepalive_without_calls`; `backoff_max_s` bounds the pause between attempts to reconnect; calls go
    to the least busy of up to `connections`; `compression` is for requests; without `credentials` there is no TLS."""

    max_receive_bytes: int = 64 << 20
    max_send_bytes: int = 64 << 20
    keepalive_s: float = 20.0
    keepalive_without_calls: bool = False
    backoff_max_s: float = 2.0
    connections: int = 1
    compression: Compression = Compression.IDENTITY
    credentials: ChannelCredentials | None = None


class Server(ABC):
    """A gRPC server on this event loop. Register, then `add_port`, then `start`, then `stop`."""

    @property
    @abstractmethod
    def registry(self) -> Any:
        """What generated `add_XServicer_to_server` functions take as their server: a `grpc.aio.Server`."""

    @abstractmethod
    def add_bytes_handler(self, path: str, handler: BytesHandler) -> None:
        """Serve the unary method `/package.Service/Method`. RpcError raised by the handler becomes the status; any
        other exception becomes INTERNAL without text. Cancellation and the deadline reach it as CancelledError."""

    @abstractmethod
    def add_port(self, address: str, credentials: ServerCredentials | None = None) -> int:
        """Bind `host:port` (0 = any) or `unix:PATH`; returns the port, 0 for a path. No TLS without `credentials`.
        Raises OSError naming the address when taken."""

    @abstractmethod
    def add_socket(self, listening: socket.socket, credentials: ServerCredentials | None = None) -> None:
        """Take calls from a socket that listens already, and own it. Raises OSError where the
        implementation binds only by itself."""

    def closings(self) -> Mapping[str, int]:
        """How many connections this side closed, by reason; there are few reasons. Empty where nobody counts."""
        return {}

    @abstractmethod
    async def start(self) -> None: ...

    @abstractmethod
    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, wait up to `grace_s` for running ones, then cancel them. Does nothing the second time."""

    @abstractmethod
    async def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        """Wait until `stop` has done its work; False when `timeout_s` passed first."""


class Channel(ABC):
    """A client of one target, `host:port` or `unix:PATH`. Concurrent calls share it; it reconnects by itself."""

    @property
    @abstractmethod
    def stub_channel(self) -> Any:
        """What generated `XStub` classes take as their channel. Calls have the surface of grpc.aio's, except that they
        raise RpcError, and that `read` returns None at the end of a stream."""

    @abstractmethod
    async def unary(self, path: str, request: bytes, timeout_s: float | None, metadata: Metadata = ()) -> bytes:
        """Call a unary method with serialised messages. Raises RpcError. What awaits it need not be a task."""

    @abstractmethod
    async def close(self, grace_s: float = 0.0) -> None:
        """Refuse new calls, wait up to `grace_s` for running ones, then cancel them."""
