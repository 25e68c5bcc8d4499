"""The channel that generated stubs ask for their calls, on top of `Exchange`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from serving.transport.call import frame_message
from serving.transport.compression import GZIP_FIELD, compression_of, frame_squeezed
from serving.transport.deadlines import bounded
from serving.transport.exchange import Exchange
from serving.transport.port import ChannelOptions, Compression
from serving.transport.status import Code, Metadata, RpcError


class Caller(Protocol):
    """The part of a channel that stubs need."""

    options: ChannelOptions

    def request_block(self, path: str, timeout_s: float | None, metadata: Metadata) -> bytes: ...

    async def begin(self, exchange: Exchange, block: bytes, waits: bool) -> None: ...


def _same(message: Any) -> Any:
    return message


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call is made."""

    timeout_s: float | None
    metadata: Metadata
    waits: bool
    squeezes: bool

    @classmethod
    def of(cls, how: dict[str, Any], options: ChannelOptions) -> CallOptions:
        chosen = how.get("compression")
        compression = options.compression if chosen is None else compression_of(chosen)
        return cls(
            bounded(how.get("timeout")),
            tuple(how.get("metadata") or ()),
            bool(how.get("wait_for_ready")),
            compression is Compression.GZIP,
        )


@dataclass(frozen=True, slots=True)
class StubMethod:
    """One method of a stub; calling it starts a call."""

    caller: Caller
    path: str
    serialize: Callable[[Any], bytes]
    deserialize: Callable[[bytes], Any]
    request_streaming: bool

    def __call__(self, request: Any = None, **how: Any) -> StubCall:
        """Keywords are grpc's: timeout, metadata, wait_for_ready, compression. Others have no meaning here."""
        return StubCall(self, request, CallOptions.of(how, self.caller.options))


class StubChannel:
    """The four makers of methods."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return StubMethod(self._caller, path, request_serializer or _same, response_deserializer or _same, False)

    unary_stream = unary_unary

    def stream_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Any:
        return StubMethod(self._caller, path, request_serializer or _same, response_deserializer or _same, True)

    stream_stream = stream_unary


async def _begin(caller: Caller, exchange: Exchange, block: bytes, waits: bool) -> None:
    try:
        await caller.begin(exchange, block, waits)
    except RpcError as error:
        exchange.finish(error)


def _stop(begun: asyncio.Task[None], sending: asyncio.Task[None]) -> None:
    """No call keeps the task that sends for it: one that is cancelled keeps an error, whose frames know the call."""
    if sending is not asyncio.current_task():
        sending.cancel()
    begun.cancel()


class StubCall:
    """A running call with the surface of grpc.aio's: awaited for a single reply, iterated or read for a stream."""

    def __init__(self, method: StubMethod, request: Any, how: CallOptions) -> None:
        self._method = method
        self._squeezes = how.squeezes
        self._exchange = Exchange(method.caller.options, how.timeout_s)
        block = method.caller.request_block(method.path, how.timeout_s, how.metadata)
        beginning = _begin(method.caller, self._exchange, block + GZIP_FIELD if how.squeezes else block, how.waits)
        self._begun = asyncio.ensure_future(beginning)
        self._exchange.on_done.append(partial(_stop, self._begun, asyncio.ensure_future(self._send(request))))

    # --- requests ---

    async def _send(self, request: Any) -> None:
        """Send the requests that came with the call; without any, `write` sends them."""
        await self._begun
        try:
            if not self._method.request_streaming:
                await self._send_one(request, end=True)
            elif request is not None:
                await self._send_all(request)
        except RpcError as error:
            self._exchange.abandon(error)
        except Exception as error:  # noqa: BLE001 - the caller's iterator failed: so does the call
            self._exchange.abandon(RpcError(Code.CANCELLED, f"the requests failed: {type(error).__name__}"))

    async def _send_one(self, request: Any, end: bool) -> None:
        payload = self._method.serialize(request)
        self._exchange.send_framed(await frame_squeezed(payload) if self._squeezes else frame_message(payload), end)

    async def _send_all(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        if isinstance(requests, AsyncIterable):
            async for request in requests:
                await self.write(request)
        else:
            for request in requests:
                await self.write(request)
        self._exchange.half_close()

    async def write(self, request: Any) -> None:
        """Send one request, and wait while the peer is slow to read. Raises RpcError."""
        await self.wait_for_connection()
        await self._send_one(request, end=False)
        await self._exchange.drained()

    async def done_writing(self) -> None:
        await self.wait_for_connection()
        self._exchange.half_close()

    async def wait_for_connection(self) -> None:
        await asyncio.wait((self._begun,))

    # --- replies ---

    def __await__(self) -> Generator[Any, None, Any]:
        return self._only().__await__()

    async def _only(self) -> Any:
        try:
            return self._method.deserialize(await self._exchange.only())
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while (reply := await self.read()) is not None:
                yield reply
        finally:
            self.cancel()

    async def read(self) -> Any:
        """The next message; None at the end of the stream. Raises RpcError."""
        try:
            reply = await self._exchange.receive()
        except asyncio.CancelledError:
            self.cancel()
            raise
        return None if reply is None else self._method.deserialize(reply)

    # --- the call ---

    def cancel(self) -> bool:
        """False when it had ended."""
        if self._exchange.done:
            return False
        self._exchange.abandon(RpcError(Code.CANCELLED, "cancelled"))
        return True

    def cancelled(self) -> bool:
        error = self._exchange.error
        return error is not None and error.code is Code.CANCELLED

    def done(self) -> bool:
        return self._exchange.done

    def time_remaining(self) -> float | None:
        deadline = self._exchange.deadline
        return None if deadline is None else max(0.0, deadline - self._exchange.loop.time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._exchange.done:
            callback(self)
        else:
            self._exchange.on_done.append(lambda: callback(self))

    async def initial_metadata(self) -> Metadata:
        await self._exchange.head_arrived()
        return () if self._exchange.head is None else self._exchange.head.metadata()

    async def trailing_metadata(self) -> Metadata:
        await self._exchange.ended()
        return self._exchange.trailing

    async def code(self) -> Code:
        await self._exchange.ended()
        return Code.OK if self._exchange.error is None else self._exchange.error.code

    async def details(self) -> str:
        await self._exchange.ended()
        return "" if self._exchange.error is None else self._exchange.error.details
