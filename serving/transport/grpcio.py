"""The port on grpc.aio, the reference implementation."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from serving.transport.aio_server import AioServer, happened
from serving.transport.context import bytes_behaviour
from serving.transport.credentials import ClientCertificates, CredentialsError, ServerCredentials
from serving.transport.deadlines import bounded
from serving.transport.grpcio_guard import GuardedChain, GuardedHandlers
from serving.transport.listening import UNIX, check_free, listen
from serving.transport.port import (
    BytesHandler,
    Channel,
    ChannelOptions,
    Compression,
    Interceptor,
    Server,
    ServerOptions,
)
from serving.transport.status import Code, Metadata, RpcError

_END_S = 1.0
"""How long a stopped server waits for functions that were told to end, and may be stuck."""

_MIN_WAITING = 32
"""Calls that may come at the same moment, however few are answered at a time."""

_CODES = {status.value[0]: Code(status.value[0]) for status in grpc.StatusCode}


@functools.cache
def _keep_engine() -> None:
    """Have grpc's poller live as long as the process: grpc drops it with the last channel, its sockets unclosed."""
    grpc.aio.init_grpc_aio()


def _server_options(options: ServerOptions) -> list[tuple[str, int]]:
    keepalive_ms = int(options.keepalive_s * 1000)
    return [
        ("grpc.so_reuseport", 0),  # a second server on a port is an error, not a share of the calls
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        ("grpc.max_send_message_length", options.max_send_bytes),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),  # clients choose how often they ping
        *_waiting_options(options.max_concurrent_calls),
    ]


def _waiting_options(most_calls: int | None) -> list[tuple[str, int]]:
    """Bounds what waits within grpc until the event loop begins it, one call in a turn, and counts for no limit of ours
    yet. When more calls come than are answered, all that are begun would have waited until nobody waits for them. grpc
    drops some of those between the bounds and all beyond, as CANCELLED."""
    if most_calls is None:
        return []
    some = max(_MIN_WAITING, most_calls // 4)
    return [
        ("grpc.server.max_pending_requests", some),
        ("grpc.server.max_pending_requests_hard_limit", some + some // 4),
    ]


def _channel_options(options: ChannelOptions) -> list[tuple[str, int]]:
    keepalive_ms = int(options.keepalive_s * 1000)
    backoff_max_ms = int(options.backoff_max_s * 1000)
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", options.max_receive_bytes),
        ("grpc.max_send_message_length", options.max_send_bytes),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.keepalive_permit_without_calls", int(options.keepalive_without_calls)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", min(100, backoff_max_ms)),
        ("grpc.min_reconnect_backoff_ms", min(1000, backoff_max_ms)),
        ("grpc.max_reconnect_backoff_ms", backoff_max_ms),
    ]


_COMPRESSIONS = {Compression.IDENTITY: grpc.Compression.NoCompression, Compression.GZIP: grpc.Compression.Gzip}


class _Registry(AioServer):
    """What generated code registers its servicers with: the server, with a guard around every handler."""

    def __init__(self, server: Server, aio: grpc.aio.Server, guards: bool) -> None:
        super().__init__(server)
        self._aio = aio
        self._guards = guards

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Interceptors get bare handlers: the guard goes around what they make of them."""
        self._aio.add_generic_rpc_handlers([GuardedHandlers(item) if self._guards else item for item in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Generated code names every handler a second time here; the generic ones serve."""


class _Threads(ThreadPoolExecutor):
    """Of plain functions. `running`: what has not ended."""

    def __init__(self, most: int) -> None:
        super().__init__(most, "servicer")
        self.running: set[Future[Any]] = set()

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future = super().submit(work, *arguments, **named)
        self.running.add(future)
        future.add_done_callback(self.running.discard)
        return future

    async def end(self) -> None:
        """A function that serves a stream ends by telling the event loop so, which must be there to hear it."""
        self.shutdown(wait=False)
        ending = [asyncio.wrap_future(future) for future in self.running.copy()]
        if ending:
            await asyncio.wait(ending, timeout=_END_S)


class GrpcioServer(Server):
    def __init__(self, options: ServerOptions, interceptors: Sequence[Interceptor] = ()) -> None:
        _keep_engine()
        chain: list[Any] = [GuardedChain(interceptors)] if interceptors else []
        self._threads = _Threads(options.max_threads)
        self._server = grpc.aio.server(
            self._threads,
            interceptors=chain,
            options=_server_options(options),
            maximum_concurrent_rpcs=options.max_concurrent_calls,
            compression=_COMPRESSIONS[options.compression],
        )
        self._stopped = asyncio.Event()
        self._registry = _Registry(self, self._server, guards=not interceptors)

    @property
    def registry(self) -> Any:
        return self._registry

    def add_bytes_handler(self, path: str, handler: BytesHandler) -> None:
        _, service, method = path.split("/")
        rpc: Any = grpc.unary_unary_rpc_method_handler(bytes_behaviour(handler))
        self._registry.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: rpc})])

    def add_port(self, address: str, credentials: ServerCredentials | None = None) -> int:
        if address.startswith(UNIX):
            check_free(address)  # grpc takes paths away from others
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _server_credentials(credentials))
        except RuntimeError:
            raise _bind_error(address) from None
        return 0 if address.startswith(UNIX) else int(port)

    def add_socket(self, listening: socket.socket, credentials: ServerCredentials | None = None) -> None:
        listening.close()
        raise OSError(errno.ENOTSUP, "grpcio takes no sockets that listen already; use the transport native")

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)
        await self._threads.end()
        self._stopped.set()

    async def wait_for_termination(self, timeout_s: float | None = None) -> bool:
        return await happened(self._stopped, timeout_s)


def _bind_error(address: str) -> OSError:
    """grpc does not say why it could not bind; the system does when asked the same."""
    try:
        listen(address).close()
    except OSError as error:
        return error
    return OSError(errno.EADDRINUSE, f"cannot bind {address}")


def _server_credentials(credentials: ServerCredentials) -> grpc.ServerCredentials:
    """grpc asks at every handshake, on a thread of its own. Raises CredentialsError."""
    if credentials.clients is ClientCertificates.OPTIONAL:
        raise CredentialsError("grpcio asks clients for no certificate or requires one; use the transport native")

    def newest() -> Any:
        return _configuration(credentials) if credentials.refresh() else None

    required = credentials.clients is ClientCertificates.REQUIRED
    return grpc.dynamic_ssl_server_credentials(_configuration(credentials), newest, required)


def _configuration(credentials: ServerCredentials) -> grpc.ServerCertificateConfiguration:
    loaded = credentials.loaded
    pairs = [(loaded.key, loaded.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, loaded.authority or None)


@contextlib.contextmanager
def rpc_errors() -> Iterator[None]:
    """Raise RpcError where grpc raises its own errors, or says of a call that ended that its caller is cancelled."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _rpc_error(error) from None
    except grpc.aio.UsageError as error:
        if "closed" not in str(error):
            raise
        raise RpcError(Code.CANCELLED, "the channel is closed") from None
    except asyncio.CancelledError:
        caller = asyncio.current_task()
        if caller is None or caller.cancelling():
            raise
        raise RpcError(Code.CANCELLED, "cancelled") from None


def _rpc_error(error: grpc.aio.AioRpcError) -> RpcError:
    code, details = _CODES[error.code().value[0]], error.details() or ""
    if code is Code.CANCELLED and details in {"", "CANCELLED"}:
        # Nobody here cancelled and no handler chose the status: the server dropped the call.
        return RpcError(Code.UNAVAILABLE, "the server is stopping, or too many calls wait there")
    return RpcError(code, details, tuple((key, value) for key, value in error.trailing_metadata() or ()))


class _ClientCall:
    """A running call of any cardinality whose failures are RpcErrors. Everything else is grpc's call."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        with rpc_errors():
            return (yield from self._call.__await__())

    async def __aiter__(self) -> AsyncIterator[Any]:
        with rpc_errors():
            async for message in self._call:
                yield message

    async def read(self) -> Any:
        """The next message; None at the end of the stream."""
        with rpc_errors():
            message = await self._call.read()
        return None if message is grpc.aio.EOF else message

    async def write(self, message: Any) -> None:
        with rpc_errors():
            await self._call.write(message)

    async def done_writing(self) -> None:
        with rpc_errors():
            await self._call.done_writing()


class _StubChannel:
    """The four makers of multi-callables that generated stubs ask a channel for."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.unary_unary = self._maker(channel.unary_unary)
        self.unary_stream = self._maker(channel.unary_stream)
        self.stream_unary = self._maker(channel.stream_unary)
        self.stream_stream = self._maker(channel.stream_stream)

    @staticmethod
    def _maker(make: Any) -> Any:
        def multicallable(*args: Any, **options: Any) -> Any:
            invoke = make(*args, **options)

            def call(request: Any = None, timeout: float | None = None, **how: Any) -> _ClientCall:
                with rpc_errors():
                    return _ClientCall(invoke(request, timeout=bounded(timeout), **how))

            return call

        return multicallable


def _channel(target: str, options: ChannelOptions) -> grpc.aio.Channel:
    secure, compression = options.credentials, _COMPRESSIONS[options.compression]
    if secure is None:
        return grpc.aio.insecure_channel(target, _channel_options(options), compression)
    expected = secure.server_name or ("localhost" if target.startswith(UNIX) else "")
    name = [("grpc.ssl_target_name_override", expected)] if expected else []
    loaded = secure.loaded
    credentials = grpc.ssl_channel_credentials(loaded.authority or None, loaded.key or None, loaded.certificate or None)
    return grpc.aio.secure_channel(target, credentials, [*_channel_options(options), *name], compression)


class GrpcioChannel(Channel):
    def __init__(self, target: str, options: ChannelOptions) -> None:
        _keep_engine()
        self._channel = _channel(target, options)
        self._stub_channel = _StubChannel(self._channel)
        self._unary: dict[str, Any] = {}

    @property
    def stub_channel(self) -> Any:
        return self._stub_channel

    async def unary(self, path: str, request: bytes, timeout_s: float | None, metadata: Metadata = ()) -> bytes:
        invoke = self._unary.get(path)
        if invoke is None:
            invoke = self._unary[path] = self._channel.unary_unary(path)
        # In a task, which tells whether its caller was cancelled or the call.
        return await asyncio.ensure_future(_reply(invoke, request, bounded(timeout_s), tuple(metadata)))

    async def close(self, grace_s: float = 0.0) -> None:
        await self._channel.close(grace_s or None)


async def _reply(invoke: Any, request: bytes, timeout_s: float | None, metadata: Metadata) -> bytes:
    with rpc_errors():
        reply: bytes = await invoke(request, timeout=timeout_s, metadata=metadata)
    return reply
