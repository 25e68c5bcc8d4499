"""The surface of grpc.aio's servicer contexts, and the running of servicer methods of all four cardinalities."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any, NoReturn

from serving.transport.call import Head, frame_message, too_large
from serving.transport.frames import ErrorCode
from serving.transport.methods import Method
from serving.transport.server_call import Host, ServerCall, verdict
from serving.transport.status import Code, Metadata, RpcError
from serving.transport.streams import Stream


class _AbortError(RpcError):
    """Raised by `abort`; a servicer lets it pass."""


def _code(status: Any) -> Code:
    """Our code for ours or for grpc's."""
    return status if isinstance(status, Code) else Code(status.value[0])


class ServicerCall(ServerCall):
    """A call of a servicer's method. Requests wait in `_requests` with their bytes unacknowledged: back-pressure."""

    __slots__ = ("_ended", "_held_bytes", "_method", "_requests", "_wakers", "code", "details")

    def __init__(self, host: Host, stream: Stream, head: Head, method: Method) -> None:
        super().__init__(host, stream, head)
        self.code = Code.OK
        self.details = ""
        self._method = method
        self._requests: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._wakers: list[asyncio.Future[None]] = []
        if method.request_streaming:
            self.start(self._serve(None))

    def received_messages(self, messages: list[bytes], count: int, end: bool) -> None:
        self._requests.extend(messages)
        self._held_bytes += count
        self._ended = end
        if not self._requests or not self._method.request_streaming:
            self._give_back()
        if self._method.request_streaming:
            self._wake()
        elif len(self._requests) > 1 or (end and not self._requests):
            self.fail(RpcError(Code.INTERNAL, "a unary request needs exactly one message"))
        elif end and not self.done:
            self.start(self._serve(self._requests.popleft()))

    def writable(self) -> None:
        self._wake()

    def closed(self, code: ErrorCode) -> None:
        super().closed(code)
        self._wake()

    def _give_back(self) -> None:
        count, self._held_bytes = self._held_bytes, 0
        if count:
            self.host.connection.consumed(self.stream, count)

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    async def _progress(self) -> None:
        waker = self.host.loop.create_future()
        self._wakers.append(waker)
        await waker

    async def next_request(self) -> Any:
        """The next message; None at the end of the stream."""
        while not self._requests:
            if self._ended or self.done:
                return None
            await self._progress()
        message = self._requests.popleft()
        if not self._requests:
            self._give_back()
        return self._method.deserialize(message)

    async def requests(self) -> AsyncIterator[Any]:
        while (request := await self.next_request()) is not None:
            yield request

    async def send(self, message: Any) -> None:
        """Send one message, and wait while the peer is slow to read."""
        payload = self._method.serialize(message)
        if len(payload) > self.host.options.max_send_bytes:
            raise too_large(len(payload), self.host.options.max_send_bytes)
        if self.done:
            return
        self.send_head()
        self.host.connection.send_data(self.stream, frame_message(payload))
        while self.stream.pending is not None and not self.done:
            await self._progress()

    async def _serve(self, request: bytes | None) -> None:
        try:
            await self._answer(request)
        except asyncio.CancelledError:
            self.fail(RpcError(Code.CANCELLED, "cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            self.fail(self._left_out() if isinstance(error, NotImplementedError) else verdict(error))

    def _left_out(self) -> RpcError:
        """For the body that generated servicers have."""
        return RpcError(Code.UNIMPLEMENTED, "method not implemented")

    async def _answer(self, request: bytes | None) -> None:
        method = self._method
        context = Context(self)
        argument = self.requests() if request is None else method.deserialize(request)
        if method.threaded:
            argument = ThreadedRequests(self) if request is None else argument
            result = await self.host.loop.run_in_executor(None, method.behaviour, argument, context)
        else:
            result = method.behaviour(argument, context)
        if not method.response_streaming:
            await self._unary(result if method.threaded else await result)
        elif method.threaded:
            await self._from_iterator(iter(result))
        elif hasattr(result, "__aiter__"):
            await self._from_generator(result)
        else:
            await result
        self.finish(self.code, self.details, self.trailing)

    async def _unary(self, reply: Any) -> None:
        if self.code is not Code.OK or self.done:
            return
        payload = self._method.serialize(reply)
        if self.head_sent:
            await self.send(reply)
        else:
            self.succeed(payload)

    async def _from_generator(self, messages: Any) -> None:
        async with aclosing(messages):
            async for message in messages:
                await self.send(message)

    async def _from_iterator(self, messages: Iterator[Any]) -> None:
        while True:
            batch = await self.host.loop.run_in_executor(None, _next, messages)
            if not batch:
                return
            await self.send(batch[0])


def _next(messages: Iterator[Any]) -> tuple[Any, ...]:
    """The next message alone, or nothing: StopIteration cannot cross a future."""
    for message in messages:
        return (message,)
    return ()


class ThreadedRequests:
    """The request stream for a method that runs in a thread."""

    def __init__(self, call: ServicerCall) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        request = asyncio.run_coroutine_threadsafe(self._call.next_request(), self._call.host.loop).result()
        if request is None:
            raise StopIteration
        return request


class Context:
    """What servicers see. Codes may be grpc's or ours; `abort` may be awaited or called from a thread."""

    def __init__(self, call: ServicerCall) -> None:
        self._call = call

    def abort(self, code: Any, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call with this status, which must not be OK."""
        known = _code(code)
        if known is Code.OK:
            raise ValueError("abort with OK")
        raise _AbortError(known, details, tuple(trailing_metadata))

    def abort_with_status(self, status: Any) -> NoReturn:
        self.abort(status.code, status.details, status.trailing_metadata or ())

    async def read(self) -> Any:
        """The next request; None at the end of the stream."""
        return await self._call.next_request()

    async def write(self, message: Any) -> None:
        await self._call.send(message)

    async def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        self._call.send_head(tuple(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._call.set_trailing_metadata(tuple(trailing_metadata))

    def trailing_metadata(self) -> Metadata:
        return self._call.trailing

    def invocation_metadata(self) -> Metadata:
        return self._call.metadata()

    def set_code(self, code: Any) -> None:
        self._call.code = _code(code)

    def set_details(self, details: str) -> None:
        self._call.details = details

    def code(self) -> Code:
        return self._call.code

    def details(self) -> str:
        return self._call.details

    def peer(self) -> str:
        return self._call.peer()

    def peer_identities(self) -> tuple[bytes, ...]:
        return tuple(name.encode() for name in self._call.peer_identities())

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> dict[str, Any]:
        return {}

    def time_remaining(self) -> float | None:
        return self._call.time_remaining()

    def is_active(self) -> bool:
        return not self._call.done

    def cancelled(self) -> bool:
        return self._call.task is not None and self._call.task.cancelled()

    def done(self) -> bool:
        return self._call.done

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callbacks = self._call.callbacks = self._call.callbacks or []
        callbacks.append(lambda: callback(self))

    def set_compression(self, compression: Any) -> None:
        """Replies are never compressed, which every peer must accept."""

    def disable_next_message_compression(self) -> None:
        """Replies are never compressed."""
