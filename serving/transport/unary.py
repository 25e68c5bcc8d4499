"""A client's unary call: one request, one reply, nothing between. What most calls are, made as cheap as it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from serving.transport.call import Head, Message, MessageReader
from serving.transport.client_socket import ClientProtocol
from serving.transport.frames import ErrorCode
from serving.transport.inflation import AT_ONCE_BYTES, Squeezed, inflated
from serving.transport.outcome import (
    broken,
    check_length,
    ending,
    give_up,
    headless,
    is_informational,
    wrong_head,
    wrong_trailers,
)
from serving.transport.promise import Promise, to_await
from serving.transport.status import Code, RpcError, let_go
from serving.transport.streams import Stream


class RefusedError(Exception):
    """The server did nothing with the call, which may be sent again (RFC 9113, section 8.7)."""


class UnaryCall:
    """On its stream from the beginning. `reply` has the outcome, for the coroutine that makes the call: the message, an
    RpcError or a RefusedError."""

    __slots__ = ("_head", "_inflating", "_max_receive_bytes", "_messages", "_protocol", "_reader", "_stream",
        "deadline", "reply")  # fmt: skip

    def __init__(self, protocol: ClientProtocol, deadline: float | None, max_receive_bytes: int) -> None:
        self.deadline = deadline
        self.reply: Promise[bytes] | asyncio.Future[bytes] = to_await(protocol.loop)
        self._protocol = protocol
        self._max_receive_bytes = max_receive_bytes
        self._head: Head | None = None
        self._reader: MessageReader | None = None
        self._messages: list[Message] | None = None
        self._stream: Stream | None = None
        self._inflating: asyncio.Task[bytes] | None = None

    def begin(self, block: bytes, framed: bytes) -> Awaitable[bytes]:
        self._stream = self._protocol.connection.request(block, framed, self)
        if self.deadline is not None:
            self._protocol.deadlines.watch(self.deadline)
        return self.reply

    def abandon(self, error: RpcError) -> None:
        """End from this side, and tell the peer. Does nothing once the call has ended."""
        if self._stream is not None:
            give_up(self._protocol.connection, self._stream, error)
            self._fail(error)

    def expire(self) -> None:
        self.abandon(RpcError(Code.DEADLINE_EXCEEDED, "deadline exceeded"))

    def _fail(self, error: Exception) -> None:
        if self._ended():
            let_go(error)
            self.reply.set_exception(error)

    def _ended(self) -> bool:
        """Whether somebody still waits for the outcome."""
        if self._stream is not None:
            self._stream = None
            self._protocol.call_ended()
        return not self.reply.done()

    # --- client_socket.ClientCall ---

    def received_whole(self, head: Head, payload: bytes, last: Head) -> None:
        size = len(payload) - 5
        good = head.shape.begins_plainly and last.shape.ends_well and not last.shape.malformed_trailers
        expected = good and self._head is None and not (head.malformed or last.malformed)
        if expected and int.from_bytes(payload[:5], "big") == size and size <= self._max_receive_bytes:
            if self._ended():
                self.reply.set_result(payload[5:])
        else:
            self.received_head(head, end=False)
            self.received_data(payload, end=False)
            self.received_head(last, end=True)

    def received_head(self, head: Head, end: bool) -> None:
        if self._stream is None:
            return
        if is_informational(head, end):
            self._protocol.connection.bear()
            return
        error = wrong_head(head, end) if self._head is None else wrong_trailers(head, end)
        if error is not None:
            self.abandon(error)
        elif end:
            self._finish(head)
        else:
            self._head = head

    def _finish(self, last: Head) -> None:
        error, messages = ending(self._head or last, last, self._reader), self._messages or []
        if error is None and len(messages) != 1:
            error = RpcError(Code.INTERNAL, f"{len(messages)} replies to a unary call")
        if error is not None:
            self.abandon(error)
        elif self._ended():
            self._reply(messages[0])

    def _reply(self, message: Message) -> None:
        """Inflated in a thread if that takes long; the call itself is over."""
        if not isinstance(message, Squeezed):
            self.reply.set_result(message)
            return
        if message.size > AT_ONCE_BYTES:
            self._inflating = asyncio.ensure_future(inflated(message))
            self._inflating.add_done_callback(self._inflated)
            return
        try:
            self.reply.set_result(message.inflated())
        except RpcError as error:
            let_go(error)
            self.reply.set_exception(error)

    def _inflated(self, inflating: asyncio.Task[bytes]) -> None:
        self._inflating = None
        if self.reply.done():
            return
        error = inflating.exception()
        if error is None:
            self.reply.set_result(inflating.result())
        else:
            self.reply.set_exception(error)

    def received_data(self, payload: bytes, end: bool) -> None:
        if self._stream is None:
            return
        try:
            if self._head is None:
                raise headless()
            if self._reader is None:
                encoding = self._head.shape.encoding
                self._reader, self._messages = MessageReader(self._max_receive_bytes, encoding), []
            messages = self._reader.feed(payload)
            check_length(self._head, self._reader)
            if end:
                raise RpcError(Code.INTERNAL, "the response ended without a status")
            self._messages = [*(self._messages or ()), *messages]
            if len(self._messages) > 1:
                raise RpcError(Code.INTERNAL, "more than one reply to a unary call")
        except RpcError as error:
            self.abandon(error)
            return
        self._protocol.connection.consumed(self._stream, len(payload))

    def writable(self) -> None:
        """All is sent at the beginning; what does not fit waits in the stream."""

    def closed(self, code: ErrorCode) -> None:
        if code is ErrorCode.REFUSED_STREAM and self._head is None:
            self._fail(RefusedError())
        else:
            self._fail(broken(self._protocol.connection, code))
