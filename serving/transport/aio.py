"""Calls of servicers' methods, of all four cardinalities, with or without interceptors."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing
from threading import Lock
from typing import Any

from serving.transport.call import Head, Message, frame_message, response_head
from serving.transport.compression import GZIP_FIELD, accepts_gzip, frame_squeezed
from serving.transport.frames import ErrorCode
from serving.transport.inflation import Squeezed
from serving.transport.interception import CallDetails, metadata_of
from serving.transport.methods import Method, Registry, method_of
from serving.transport.port import Compression
from serving.transport.server_call import Host, ServerCall, unknown_method, verdict
from serving.transport.servicer_context import Context, ThreadedContext, code_of
from serving.transport.status import Code, Metadata, RpcError, too_large
from serving.transport.streams import Stream


def one_request_needed() -> RpcError:
    return RpcError(Code.INTERNAL, "a unary request needs exactly one message")


def _ended_early() -> RpcError:
    return RpcError(Code.CANCELLED, "the call has ended")


class ServicerCall(ServerCall):
    """A call of a servicer's method. Requests wait in `_requests` with their bytes unacknowledged: back-pressure."""

    __slots__ = ("_ended", "_held_bytes", "_inflated_bytes", "_method", "_requests", "_wakers", "compress_next",
        "compression", "details", "status")  # fmt: skip

    def __init__(self, host: Host, stream: Stream, head: Head, method: Method) -> None:
        super().__init__(host, stream, head)
        self.status: Any = None
        self.details = ""
        self.compression = host.options.compression
        self.compress_next = True
        self._method = method
        self._requests: deque[Message] = deque()
        self._held_bytes = self._inflated_bytes = 0
        self._ended = False
        self._wakers: list[asyncio.Future[None]] = []
        if method.request_streaming:
            self.start(self._serve(None))

    def received_whole(self, message: bytes) -> None:
        if self._method.request_streaming:
            super().received_whole(message)
        else:
            self.start(self._serve(message))

    def received_messages(self, messages: Sequence[Message], count: int, end: bool) -> None:
        self._requests.extend(messages)
        self._ended = end
        if self._method.request_streaming:
            self._queued(count)
            self._wake()
        elif len(self._requests) > 1 or (end and not self._requests):
            raise one_request_needed()
        elif end:
            self.release()
            self.start(self._serve(self._requests.popleft()))
        else:
            self._await_rest(count)

    def _queued(self, count: int) -> None:
        """Of a stream: whole messages keep their bytes unacknowledged; what else there is, is kept beside them."""
        self._held_bytes += count
        if self.keeps or (self.reader is not None and self.reader.unfinished):
            self._recount()
        if not self._requests:
            self._give_back()

    def _recount(self) -> None:
        """The beginning of a message, and the inflated one that the servicer took last."""
        self.keep(self._inflated_bytes + (0 if self.reader is None else self.reader.unfinished))

    @property
    def awaits_request(self) -> bool:
        """Between the messages of a stream there may be any time."""
        between = self._method.request_streaming and (self.reader is None or not self.reader.unfinished)
        return not between and super().awaits_request

    def writable(self) -> None:
        self._wake()

    def closed(self, code: ErrorCode) -> None:
        if not self.done:
            self.status = Code.CANCELLED
        super().closed(code)

    def _finish(self) -> None:
        super()._finish()
        if self._wakers:  # a thread that waits is not cancelled with the task
            self._wake()

    def _give_back(self) -> None:
        count, self._held_bytes = self._held_bytes, 0
        if count and self.keeps:
            self.host.intake.give_back(self, count)
        elif count:
            self.returns(count)

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    async def _progress(self) -> None:
        waker = self.host.loop.create_future()
        self._wakers.append(waker)
        await waker

    async def _next_message(self) -> bytes | None:
        while not self._requests:
            if self._ended:
                return None
            if self.done:
                raise _ended_early()
            await self._progress()
        message = self._requests.popleft()
        if not self._requests:
            self._give_back()
        if not isinstance(message, Squeezed):
            return message
        self._inflated_bytes = message.size
        self._recount()
        return await self.host.inflation.inflated(message)

    async def next_request(self) -> Any:
        """The next message; None at the end of the stream. Raises RpcError when the call ended before it."""
        message = await self._next_message()
        return None if message is None else self._method.deserialize(message)

    def requests(self) -> AsyncIterator[Any]:
        return _Requests(self)

    def send_head(self, metadata: Metadata = ()) -> None:
        if self.head_sent or self.done:
            return
        if self.compression is Compression.GZIP and not accepts_gzip(self.head):
            self.compression = Compression.IDENTITY
        self.head_sent = True
        block = response_head(metadata)
        self.host.connection.send_head(self.stream, block + GZIP_FIELD if self._squeezes else block)

    @property
    def _squeezes(self) -> bool:
        return self.compression is Compression.GZIP

    async def _framed(self, payload: bytes) -> bytes:
        squeezes, self.compress_next = self._squeezes and self.compress_next, True
        return await frame_squeezed(payload) if squeezes else frame_message(payload)

    async def send(self, message: Any) -> None:
        """Send one message, and wait while the peer is slow to read. Raises RpcError once the call has ended."""
        await self._send(self._method.serialize(message))

    async def _send(self, payload: bytes) -> None:
        if len(payload) > self.host.options.max_send_bytes:
            raise too_large(len(payload), self.host.options.max_send_bytes)
        self.send_head()
        framed = await self._framed(payload)
        if self.done:
            raise _ended_early()
        self.host.connection.send_data(self.stream, framed)
        while self.stream.pending is not None and not self.done:
            await self._progress()

    async def _serve(self, request: Message | None) -> None:
        try:
            await self._answer(request)
        except asyncio.CancelledError:
            self._cancelled()
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            left_out = self._method.threaded and isinstance(error, NotImplementedError)  # what generated servicers do
            self.fail(RpcError(Code.UNIMPLEMENTED, "method not implemented") if left_out else verdict(error))

    async def _answer(self, request: Message | None) -> None:
        method, context = self._method, Context(self)
        if isinstance(request, Squeezed):
            request = await self.inflated(request)
        if request is None or method.response_streaming or method.threaded:
            await self._respond(context, request)
        else:  # most calls: no more layers than they need
            reply = await method.behaviour(method.deserialize(request), context)
            if self.status is None and not (self.details or self.head_sent or self._squeezes):
                self.succeed(method.serialize(reply))
                return
            await self._unary(reply)
        self.finish(code_of(self.status), self.details, self.trailing)

    async def _respond(self, context: Context, request: bytes | None) -> None:
        method = self._method
        result = await self._behave(context, request)
        if not method.response_streaming:
            await self._unary(result)
        elif method.threaded:
            await self._from_iterator(iter(result))
        elif hasattr(result, "__aiter__"):
            await self._from_generator(result)
        else:
            await result

    async def _behave(self, context: Context, request: bytes | None) -> Any:
        """What the servicer's method returned, awaited if that is its one reply."""
        method = self._method
        if method.threaded:
            threaded = ThreadedContext(context, self.host.loop)
            argument = threaded.requests() if request is None else method.deserialize(request)
            return await self.host.loop.run_in_executor(self.host.threads, method.behaviour, argument, threaded)
        result = method.behaviour(self.requests() if request is None else method.deserialize(request), context)
        return result if method.response_streaming else await result

    async def _unary(self, reply: Any) -> None:
        if self.done or code_of(self.status) is not Code.OK:
            return
        payload = self._method.serialize(reply)
        if self.head_sent or self._squeezes:
            await self._send(payload)
        elif self.status is None and not self.details:
            self.succeed(payload)
        else:
            self.send_head()
            await self._send(payload)

    async def _from_generator(self, messages: Any) -> None:
        async with aclosing(messages):
            async for message in messages:
                await self.send(message)

    async def _from_iterator(self, messages: Iterator[Any]) -> None:
        steps, threads = _Steps(messages), self.host.threads
        try:
            while batch := await self.host.loop.run_in_executor(threads, steps.next):
                await self.send(batch[0])
        except BaseException:
            threads.submit(steps.close)
            raise


class InterceptedCall(ServicerCall):
    """A call whose method is known once the interceptors have seen it. Its requests wait meanwhile."""

    __slots__ = ("_registry",)

    def __init__(self, host: Host, stream: Stream, head: Head, registry: Registry) -> None:
        self._registry = registry
        super().__init__(host, stream, head, _UNDECIDED)

    def received_whole(self, message: bytes) -> None:
        """By now the method may be known, where interceptors decided at once; it waits for its request all the same."""
        self.received_messages([message], 0, end=True)

    def received_messages(self, messages: Sequence[Message], count: int, end: bool) -> None:
        self._requests.extend(messages)
        self._ended = end
        self._queued(count)
        self._wake()

    async def _answer(self, request: Message | None) -> None:
        details = CallDetails(self.head.shape.path, metadata_of(self.metadata()))
        handler = await self._registry.intercepted(details)
        if handler is None:
            raise unknown_method(self.head.shape.path)
        self._method = method_of(handler)
        await super()._answer(None if self._method.request_streaming else await self._only_request())

    async def _only_request(self) -> bytes:
        message = await self._next_message()
        if message is None or await self._next_message() is not None:
            raise one_request_needed()
        return message


class _Requests:
    """The messages of one call's request stream."""

    __slots__ = ("_call",)

    def __init__(self, call: ServicerCall) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        request = await self._call.next_request()
        if request is None:
            raise StopAsyncIteration
        return request


class _Steps:
    """A generator that runs step by step, each in any thread, and is closed in one when its call ends early."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self._running = Lock()

    def next(self) -> tuple[Any, ...]:
        """The next message alone, or nothing: StopIteration cannot cross a future."""
        with self._running:
            for message in self._messages:
                return (message,)
            return ()

    def close(self) -> None:
        with self._running:
            if isinstance(self._messages, Generator):
                self._messages.close()


async def _undecided(requests: Any, context: Any) -> None:
    """Stands in until the interceptors have chosen."""


_UNDECIDED = Method(_undecided, True, False, bytes, bytes, False)
