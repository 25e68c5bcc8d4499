"""Calls as a server sees them: what all share, and the unary ones answered by a bytes handler."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, Protocol

from serving.transport.call import (
    OK_TRAILERS,
    RESPONSE_HEAD,
    Head,
    Message,
    MessageReader,
    frame_message,
    response_head,
    trailers,
)
from serving.transport.connection import Connection
from serving.transport.credentials import PeerIdentity
from serving.transport.frames import ErrorCode, StreamFault
from serving.transport.inflation import Inflation, Squeezed
from serving.transport.intake import Intake
from serving.transport.port import BytesHandler, ServerOptions
from serving.transport.promise import Promise
from serving.transport.status import Code, Metadata, RpcError, let_go, too_large
from serving.transport.streams import Stream

logger = logging.getLogger(__name__)


class Host(Protocol):
    """The socket a call came from."""

    connection: Connection
    loop: asyncio.AbstractEventLoop
    options: ServerOptions
    threads: Executor
    intake: Intake[ServerCall]
    inflation: Inflation
    peer: str
    identity: PeerIdentity

    def finished(self, call: ServerCall) -> None: ...


def verdict(error: BaseException) -> RpcError:
    """The status for what a handler raised. Only RpcErrors speak to the caller; the rest goes to the log."""
    if not isinstance(error, RpcError):
        logger.error("a handler failed", exc_info=error)
    let_go(error)
    if isinstance(error, RpcError):
        return error
    return RpcError(Code.INTERNAL, "internal error")


if sys.version_info >= (3, 12):

    def started(running: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, name: str) -> asyncio.Task[None]:
        """A task that ran until it first had to wait, perhaps to its end."""
        return asyncio.Task(running, loop=loop, name=name, eager_start=True)

else:

    def started(running: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, name: str) -> asyncio.Task[None]:
        """A task, which begins in the next turn of the loop."""
        return asyncio.Task(running, loop=loop, name=name)


class ServerCall:
    """One call: its deadline, its task if it has one, and its answer. `done` once the last byte was handed over."""

    __slots__ = ("callbacks", "deadline", "done", "head", "head_sent", "host", "keeps", "outlives", "reader",
        "stream", "task", "trailing")  # fmt: skip

    def __init__(self, host: Host, stream: Stream, head: Head) -> None:
        self.host = host
        self.stream = stream
        self.head = head
        self.deadline = None if head.timeout_s is None else host.loop.time() + head.timeout_s
        self.reader: MessageReader | None = None
        self.task: asyncio.Task[None] | None = None
        self.trailing: Metadata = ()
        self.head_sent = False
        self.done = False
        self.keeps = False
        """Something in the connection's intake."""
        self.outlives = False
        """The turn of the loop that brought the request: the server knows of it."""
        self.callbacks: list[Callable[[], None]] | None = None

    # --- port.Call ---

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - self.host.loop.time())

    def metadata(self) -> Metadata:
        return self.head.metadata()

    def value_of(self, key: str) -> str:
        return self.head.value_of(key)

    def peer(self) -> str:
        return self.host.peer

    def peer_identities(self) -> tuple[str, ...]:
        return self.host.identity.names

    def identity(self) -> PeerIdentity:
        return self.host.identity

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self.trailing = metadata

    # --- the answer ---

    def send_head(self, metadata: Metadata = ()) -> None:
        if not self.head_sent and not self.done:
            self.head_sent = True
            self.host.connection.send_head(self.stream, response_head(metadata))

    def succeed(self, message: bytes) -> None:
        """The only reply of a unary call whose head was not sent."""
        if self.done:
            return
        if len(message) > self.host.options.max_send_bytes:
            self.fail(too_large(len(message), self.host.options.max_send_bytes))
            return
        try:
            last = trailers(0, "", self.trailing) if self.trailing else OK_TRAILERS
        except ValueError as error:
            self.fail(verdict(error))
            return
        self._finish()
        self.host.connection.reply(self.stream, RESPONSE_HEAD, frame_message(message), last)

    def finish(self, code: int, details: str, metadata: Metadata) -> None:
        """End with this status; trailers only when nothing was sent."""
        if self.done:
            return
        try:
            block = trailers(code, details, metadata)
        except ValueError as error:
            problem = verdict(error)
            block = trailers(problem.code, problem.details, ())
        self._finish()
        if self.head_sent:
            self.host.connection.send_last(self.stream, block)
        else:
            self.host.connection.send_head(self.stream, RESPONSE_HEAD + block, end=True)

    def fail(self, error: RpcError) -> None:
        self.finish(error.code, error.details, (*self.trailing, *error.trailing_metadata))

    def cancel(self, error: RpcError) -> None:
        """End now, from outside the handler, which sees CancelledError."""
        self.fail(error)
        self._stop()

    def _cancelled(self) -> None:
        """For the task that ends so: it keeps an error whose frames know the call, which must not know the task."""
        self.fail(RpcError(Code.CANCELLED, "cancelled"))
        self.task = None

    def expire(self) -> None:
        self.cancel(RpcError(Code.DEADLINE_EXCEEDED, "deadline exceeded"))

    def start(self, running: Coroutine[Any, Any, None]) -> None:
        self.task = started(running, self.host.loop, self.head.shape.path)

    def keep(self, size: int) -> None:
        """What is kept for the call from now on. Raises RpcError when that is too much."""
        if not self.done:
            self.keeps = True
            self.host.intake.keep(self, size)

    def release(self) -> None:
        self.keeps = False
        self.host.intake.release(self)

    def _await_rest(self, count: int) -> None:
        """Of a request that has one message: `count` bytes more have come. Raises RpcError."""
        self.keep(self.arrived)
        self.host.intake.give_back(self, count)

    def returns(self, count: int) -> None:
        self.host.connection.consumed(self.stream, count)

    @property
    def arrived(self) -> int:
        return 0 if self.reader is None else self.reader.taken

    @property
    def awaits_request(self) -> bool:
        return self.stream.receiving and self.stream.receive_window > 0 and not self.host.intake.owes(self)

    async def inflated(self, message: Squeezed) -> bytes:
        """Kept until the call ends, or takes its next message. Raises RpcError."""
        self.keep(message.size)
        return await self.host.inflation.inflated(message)

    def _finish(self) -> None:
        self.done = True
        if self.keeps:
            self.release()
        if self.outlives:
            self.host.finished(self)
        if self.callbacks is not None:
            for callback in self.callbacks:
                self.host.loop.call_soon(callback)

    # --- streams.StreamOwner ---

    def received_head(self, head: Head, end: bool) -> None:
        """Trailers of a request carry nothing that gRPC defines."""
        if head.malformed or head.shape.malformed_trailers:
            raise StreamFault(self.stream.id, ErrorCode.PROTOCOL_ERROR, "malformed trailers")
        self.received_data(b"", end)

    def received_data(self, payload: bytes, end: bool) -> None:
        size = len(payload) - 5
        if (
            end
            and self.reader is None
            and int.from_bytes(payload[:5], "big") == size <= self.host.options.max_receive_bytes
        ):
            self.received_whole(payload[5:])
        else:
            self._read(payload, end)

    def _read(self, payload: bytes, end: bool) -> None:
        try:
            if self.reader is None:
                self.reader = MessageReader(self.host.options.max_receive_bytes, self.head.shape.encoding)
            messages = self.reader.feed(payload)
            if end and self.reader.unfinished:
                raise RpcError(Code.INTERNAL, "the request ended inside a message")
            self.received_messages(messages, len(payload), end)
        except RpcError as error:
            self.cancel(error)

    def received_whole(self, message: bytes) -> None:
        """The only message, which came with the end of the request."""
        self.received_messages([message], 0, end=True)

    def received_messages(self, messages: Sequence[Message], count: int, end: bool) -> None:
        """`count` bytes arrived and completed these messages; their window is to be given back. Raises RpcError."""

    def writable(self) -> None:
        pass

    def closed(self, code: ErrorCode) -> None:
        if not self.done:
            self._finish()
        self._stop()

    def _stop(self) -> None:
        task, self.task = self.task, None  # also one that never began keeps such an error
        if task is not None:
            task.cancel()


class BytesCall(ServerCall):
    """A unary call of a bytes handler."""

    __slots__ = ("_handler", "_reply", "_request")

    def __init__(self, host: Host, stream: Stream, head: Head, handler: BytesHandler) -> None:
        super().__init__(host, stream, head)
        self._handler = handler
        self._request: Message | None = None
        self._reply: Awaitable[bytes] | None = None

    def received_messages(self, messages: Sequence[Message], count: int, end: bool) -> None:
        if len(messages) + (self._request is not None) > 1:
            raise RpcError(Code.INTERNAL, "more than one message in a unary request")
        if messages:
            self._request = messages[0]
        if not end:
            self._await_rest(count)
        elif self._request is None:
            raise RpcError(Code.INTERNAL, "no message in a unary request")
        else:
            self.release()
            request, self._request = self._request, None
            if isinstance(request, Squeezed):
                self.start(self._run_inflated(request))
            else:
                self.received_whole(request)

    async def _run_inflated(self, request: Squeezed) -> None:
        try:
            message = await self.inflated(request)
        except asyncio.CancelledError:
            self._cancelled()
            raise
        except RpcError as error:
            self.fail(error)
        else:
            self.received_whole(message)

    def received_whole(self, message: bytes) -> None:
        try:
            reply = self._handler(message, self)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            self.fail(verdict(error))
            return
        if isinstance(reply, bytes):
            self.succeed(reply)
            return
        self._reply = reply
        if isinstance(reply, (Promise, asyncio.Future)):  # nothing runs for it here: no task is needed to wait
            reply.add_done_callback(self._replied)
        else:
            self.start(self._later(reply))

    def _stop(self) -> None:
        task, reply = self.task, self._reply
        super()._stop()
        if isinstance(reply, (Promise, asyncio.Future)):
            reply.cancel()
        elif task is not None and isinstance(reply, Coroutine):  # a task that never began leaves it unawaited
            task.add_done_callback(lambda _: reply.close())

    def _replied(self, reply: Promise[bytes] | asyncio.Future[bytes]) -> None:
        self._reply = None
        if reply.cancelled():
            self.fail(RpcError(Code.CANCELLED, "cancelled"))
        elif (error := reply.exception()) is not None:
            self.fail(verdict(error))
        else:
            self.succeed(reply.result())

    async def _later(self, reply: Awaitable[bytes]) -> None:
        try:
            self.succeed(await reply)
        except asyncio.CancelledError:
            self._cancelled()
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            self.fail(verdict(error))


def unknown_method(path: str) -> RpcError:
    return RpcError(Code.UNIMPLEMENTED, f"unknown method {path}")


def unserved(host: Host, stream: Stream, head: Any, error: RpcError) -> None:
    """Answer a call that nobody serves with a status alone."""
    host.connection.send_head(stream, _ending(error.code, error.details, tuple(error.trailing_metadata)), end=True)


@lru_cache(256)
def _ending(code: int, details: str, metadata: tuple[tuple[str, str | bytes], ...]) -> bytes:
    """A server that refuses much says the same often, and must have time for what it takes."""
    return RESPONSE_HEAD + trailers(code, details, metadata)
