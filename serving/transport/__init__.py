"""gRPC servers and channels behind one port. Imports nothing else of serving; `grpc` itself only when one is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from serving.transport.arguments import Arguments, server_options
from serving.transport.context import call_of
from serving.transport.credentials import ChannelCredentials, ClientCertificates, CredentialsError, ServerCredentials
from serving.transport.port import (
    BytesHandler,
    Call,
    Channel,
    ChannelOptions,
    Compression,
    Interceptor,
    Server,
    ServerOptions,
    Transport,
)
from serving.transport.promise import Promise
from serving.transport.status import Code, Metadata, RpcError

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc loads; what matters comes to us as errors

__all__ = [
    "BytesHandler",
    "Call",
    "Channel",
    "ChannelCredentials",
    "ChannelOptions",
    "ClientCertificates",
    "Code",
    "Compression",
    "CredentialsError",
    "Interceptor",
    "Metadata",
    "Promise",
    "RpcError",
    "Server",
    "ServerCredentials",
    "ServerOptions",
    "Transport",
    "call_of",
    "channel",
    "server",
]


def server(
    kind: Transport,
    options: ServerOptions | Arguments | None = None,
    interceptors: Sequence[Interceptor] = (),
    maximum_concurrent_rpcs: int | None = None,
    compression: Any = None,
) -> Server:
    """A server of this implementation. Call it on the running event loop. What comes after `kind` may be what
    `grpc.aio.server()` takes."""
    chosen = server_options(options, maximum_concurrent_rpcs, compression)
    match kind:
        case Transport.GRPCIO:
            from serving.transport.grpcio import GrpcioServer  # noqa: PLC0415 - grpc loads only where it is used

            return GrpcioServer(chosen, interceptors)
        case Transport.NATIVE:
            from serving.transport.native_server import NativeServer  # noqa: PLC0415 - loads only where it is used

            return NativeServer(chosen, interceptors)


def channel(kind: Transport, target: str, options: ChannelOptions | None = None) -> Channel:
    """A channel to `host:port`, connected on first use. Call it on the running event loop."""
    match kind:
        case Transport.GRPCIO:
            from serving.transport.grpcio import GrpcioChannel  # noqa: PLC0415 - grpc loads only where it is used

            return GrpcioChannel(target, options or ChannelOptions())
        case Transport.NATIVE:
            from serving.transport.native_client import NativeChannel  # noqa: PLC0415 - loads only where it is used

            return NativeChannel(target, options or ChannelOptions())
