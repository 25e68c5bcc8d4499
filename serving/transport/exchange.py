"""One call as a client sees it: what was sent, what arrived, how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from serving.transport.call import Head, Message, MessageReader, frame_message
from serving.transport.connection import Connection
from serving.transport.frames import ErrorCode
from serving.transport.inflation import Squeezed, inflated
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
from serving.transport.port import ChannelOptions
from serving.transport.status import Code, Metadata, RpcError, let_go, too_large
from serving.transport.streams import Stream

_MAX_REPLAY_BYTES = 4 << 20
_MAX_REFUSALS = 2


def _not_one(found: str) -> RpcError:
    return RpcError(Code.INTERNAL, f"{found} to a unary call")


class Exchange:
    """Lives from the moment of the call; gets its stream once there is a connection. A stream's owner.

    A peer that refuses the stream before it did anything (RFC 9113, section 8.7) does not end the call: `retry` is
    called, up to `_MAX_REFUSALS` times, and what was sent goes out again. That holds until a response begins or
    `_MAX_REPLAY_BYTES` were sent.
    """

    __slots__ = ("_block", "_held_bytes", "_messages", "_reader", "_refusals", "_replay", "_replay_bytes", "_wakers",
        "connection", "deadline", "done", "error", "head", "loop", "on_done", "options", "retry", "stream",
        "trailing")  # fmt: skip

    def __init__(self, options: ChannelOptions, timeout_s: float | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.connection: Connection | None = None
        self.stream: Stream | None = None
        self.head: Head | None = None
        self.error: RpcError | None = None
        self.trailing: Metadata = ()
        self.done = False
        self.on_done: list[Callable[[], None]] = []
        self.deadline = None if timeout_s is None else self.loop.time() + timeout_s
        self.retry: Callable[[Exchange, bytes], None] | None = None
        self._block = b""
        self._replay: list[tuple[bytes, bool]] = []
        self._replay_bytes = 0
        self._refusals = 0
        self._messages: deque[Message] = deque()
        self._held_bytes = 0
        self._reader: MessageReader | None = None
        self._wakers: list[asyncio.Future[None]] = []

    # --- the caller's side ---

    def begin(self, connection: Connection, block: bytes) -> None:
        if self.done:
            return
        self.connection = connection
        self.stream = connection.open(block, self)
        self._block = block
        for framed, end in self._replay:
            connection.send_data(self.stream, framed, end)

    def send(self, message: bytes, end: bool) -> None:
        """Raises the call's error once it ended."""
        self.send_framed(frame_message(message), end)

    def send_framed(self, framed: bytes, end: bool) -> None:
        size = len(framed) - 5
        if size > self.options.max_send_bytes:
            self.abandon(too_large(size, self.options.max_send_bytes))
        if self.done:
            raise self.error.anew() if self.error else RpcError(Code.INTERNAL, "the call has ended")
        self._send(framed, end)

    def half_close(self) -> None:
        if not self.done:
            self._send(b"", end=True)

    def _send(self, framed: bytes, end: bool) -> None:
        """Without a stream, while a refused call waits for another, the replay will send it."""
        if self.retry is not None or self.stream is None:
            self._replay.append((framed, end))
            self._replay_bytes += len(framed)
            if self._replay_bytes > _MAX_REPLAY_BYTES and self.stream is not None:
                self._settle()
        if self.connection is not None and self.stream is not None:
            self.connection.send_data(self.stream, framed, end)

    def _settle(self) -> None:
        """From here on a refusal ends the call."""
        self.retry = None
        self._replay.clear()

    async def drained(self) -> None:
        """Wait until the peer's windows took all that was sent."""
        while self.stream is not None and self.stream.pending is not None and not self.done:
            await self._progress()

    async def receive(self) -> bytes | None:
        """The next message; None at the end. Raises the call's error."""
        while not self._messages:
            if self.done:
                if self.error is not None:
                    raise self.error.anew()
                return None
            await self._progress()
        message = self._messages.popleft()
        if not self._messages:
            self._give_back()
        return await self._plain(message)

    async def _plain(self, message: Message) -> bytes:
        if not isinstance(message, Squeezed):
            return message
        try:
            return await inflated(message)
        except RpcError as error:
            self.abandon(error)
            raise error.anew() from None

    async def only(self) -> bytes:
        """The single reply of a unary call. Raises the call's error."""
        while not self.done and len(self._messages) < 2:
            if self._messages:
                self._give_back()
            await self._progress()
        if len(self._messages) > 1:
            self.abandon(_not_one("more than one reply"))
        if self.error is not None:
            raise self.error.anew()
        if len(self._messages) != 1:
            raise _not_one(f"{len(self._messages)} replies")
        return await self._plain(self._messages[0])

    async def ended(self) -> None:
        """What comes before the end is somebody's to `receive`, unless it is one message."""
        while not self.done:
            if len(self._messages) == 1:
                self._give_back()
            await self._progress()

    async def head_arrived(self) -> None:
        while self.head is None and not self.done:
            await self._progress()

    def abandon(self, error: RpcError) -> None:
        """End from this side, and tell the peer."""
        if not self.done:
            if self.connection is not None and self.stream is not None:
                give_up(self.connection, self.stream, error)
            self.finish(error)

    def expire(self) -> None:
        self.abandon(RpcError(Code.DEADLINE_EXCEEDED, "deadline exceeded"))

    def finish(self, error: RpcError | None) -> None:
        if self.done:
            return
        self.done = True
        self.error = error
        self._settle()
        if error is not None:
            let_go(error)
            self.trailing = error.trailing_metadata
        self._wake()
        self.stream = None
        callbacks, self.on_done = self.on_done, []
        for callback in callbacks:
            callback()

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    async def _progress(self) -> None:
        waker = self.loop.create_future()
        self._wakers.append(waker)
        await waker

    def _give_back(self) -> None:
        count, self._held_bytes = self._held_bytes, 0
        if count and self.connection is not None and self.stream is not None and not self.done:
            self.connection.consumed(self.stream, count)

    # --- streams.StreamOwner ---

    def received_head(self, head: Head, end: bool) -> None:
        if is_informational(head, end):
            if self.connection is not None:
                self.connection.bear()
            return
        error = wrong_head(head, end) if self.head is None else wrong_trailers(head, end)
        if self.head is None:
            self.head = head
            self._settle()
        if error is not None:
            self.abandon(error)
        elif end:
            self.trailing = head.metadata()
            error = ending(self.head, head, self._reader)
            self.finish(None) if error is None else self.abandon(error)
        else:
            self._wake()

    def received_whole(self, head: Head, payload: bytes, last: Head) -> None:
        self.received_head(head, end=False)
        if not self.done:
            self.received_data(payload, end=False)
        if not self.done:
            self.received_head(last, end=True)

    def received_data(self, payload: bytes, end: bool) -> None:
        try:
            if self.head is None:
                raise headless()
            if self._reader is None:
                self._reader = MessageReader(self.options.max_receive_bytes, self.head.shape.encoding)
            messages = self._reader.feed(payload)
            check_length(self.head, self._reader)
            if end:
                raise RpcError(Code.INTERNAL, "the response ended without a status")
        except RpcError as error:
            self.abandon(error)
            return
        self._messages.extend(messages)
        self._held_bytes += len(payload)
        if not self._messages:
            self._give_back()
        elif messages and self._wakers:
            self._wake()

    def writable(self) -> None:
        self._wake()

    def closed(self, code: ErrorCode) -> None:
        if code is ErrorCode.REFUSED_STREAM and self.retry is not None and self._refusals < _MAX_REFUSALS:
            self._refusals += 1
            self.stream = self.connection = None
            self.retry(self, self._block)
        elif self.connection is not None:
            self.finish(broken(self.connection, code))
