"""The surface of grpc.aio's servicer contexts, for coroutines and for methods that run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from serving.transport.compression import compression_of
from serving.transport.credentials import PeerIdentity
from serving.transport.interception import Metadatum, metadata_of
from serving.transport.port import Compression
from serving.transport.server_call import Host
from serving.transport.status import Code, Metadata, RpcError


class AbortError(RpcError, grpc.aio.AbortError):
    """Raised by `abort`, which has ended the call; a servicer lets it pass."""


class ContextOwner(Protocol):
    """The call behind a context. `status` is what the servicer set, if it did."""

    host: Host
    done: bool
    head_sent: bool
    status: Any
    details: str
    trailing: Metadata
    compression: Compression
    compress_next: bool
    callbacks: list[Callable[[], None]] | None

    def fail(self, error: RpcError) -> None: ...

    def metadata(self) -> Metadata: ...

    def peer(self) -> str: ...

    def peer_identities(self) -> tuple[str, ...]: ...

    def identity(self) -> PeerIdentity: ...

    def time_remaining(self) -> float | None: ...

    def set_trailing_metadata(self, metadata: Metadata) -> None: ...

    def send_head(self, metadata: Metadata = ()) -> None: ...

    async def next_request(self) -> Any: ...

    async def send(self, message: Any) -> None: ...


def code_of(status: Any) -> Code:
    """Our code for ours, for grpc's, and for none."""
    if status is None or isinstance(status, Code):
        return status or Code.OK
    return Code(status.value[0])


class Context:
    """What servicers see. Codes may be grpc's or ours."""

    def __init__(self, call: ContextOwner) -> None:
        self._call = call

    async def abort(self, code: Any, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call now with this status, which must not be OK, and stop the servicer."""
        self.end(code, details, trailing_metadata)

    def end(self, code: Any, details: str, trailing_metadata: Metadata) -> NoReturn:
        """What was set before stands in for details and metadata that are not given."""
        call, known = self._call, code_of(code)
        if known is Code.OK:
            raise ValueError("abort with OK")
        call.status, call.details = code, details or call.details
        if trailing_metadata:
            call.set_trailing_metadata(tuple(trailing_metadata))
        call.fail(RpcError(known, call.details))
        raise AbortError(known, call.details, call.trailing)

    async def abort_with_status(self, status: Any) -> NoReturn:
        self.end(status.code, status.details, status.trailing_metadata or ())

    # --- messages and metadata ---

    async def read(self) -> Any:
        """The next request; `grpc.aio.EOF` at the end of the stream."""
        request = await self._call.next_request()
        return grpc.aio.EOF if request is None else request

    async def write(self, message: Any) -> None:
        await self._call.send(message)

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        if self._call.head_sent:
            raise grpc.aio.UsageError("initial metadata was sent already")
        self._call.send_head(tuple(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._call.set_trailing_metadata(tuple(trailing_metadata))

    def trailing_metadata(self) -> Metadata:
        return self._call.trailing

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        return metadata_of(self._call.metadata())

    # --- status ---

    def set_code(self, code: Any) -> None:
        self._call.status = code

    def set_details(self, details: str) -> None:
        self._call.details = details

    def code(self) -> Any:
        """What was set; None before."""
        return self._call.status

    def details(self) -> str:
        return self._call.details

    # --- the caller ---

    def peer(self) -> str:
        return self._call.peer()

    def peer_identities(self) -> tuple[bytes, ...]:
        return tuple(name.encode() for name in self._call.peer_identities())

    def peer_identity_key(self) -> str | None:
        return self._call.identity().key or None

    def auth_context(self) -> dict[str, Any]:
        return dict(self._call.identity().properties)

    # --- the life of the call ---

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def is_active(self) -> bool:
        return not self._call.done

    def cancelled(self) -> bool:
        return code_of(self._call.status) is Code.CANCELLED

    def done(self) -> bool:
        return self._call.done

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callbacks = self._call.callbacks = self._call.callbacks or []
        callbacks.append(lambda: callback(self))

    # --- compression ---

    def set_compression(self, compression: Any) -> None:
        """How replies are compressed if the caller accepts it. Raises RuntimeError once the reply has begun."""
        if self._call.head_sent:
            raise RuntimeError("compression must be set before the initial metadata is sent")
        self._call.compression = compression_of(compression)

    def disable_next_message_compression(self) -> None:
        self._call.compress_next = False


class ThreadedContext:
    """The context of a method that runs in a thread: what waits, waits there; the rest is the loop's context."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def _wait(self, running: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(running, self._loop).result()

    def abort(self, code: Any, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """Never returns."""
        self._wait(self._context.abort(code, details, trailing_metadata))

    def abort_with_status(self, status: Any) -> None:
        """Never returns."""
        self._wait(self._context.abort_with_status(status))

    def read(self) -> Any:
        return self._wait(self._context.read())

    def write(self, message: Any) -> None:
        self._wait(self._context.write(message))

    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        self._wait(self._context.send_initial_metadata(initial_metadata))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """grpc's name in threads; the callback is given nothing."""
        self._context.add_done_callback(lambda _: callback())
        return True

    def requests(self) -> Iterator[Any]:
        return iter(self.read, grpc.aio.EOF)


grpc.aio.ServicerContext.register(Context)
