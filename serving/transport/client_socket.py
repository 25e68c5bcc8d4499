"""A client's connection on its socket: output in one write per turn, keepalive, calls that wait for room."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, cast

from serving.transport.call import Head
from serving.transport.connection import Connection
from serving.transport.credentials import HTTP2
from serving.transport.deadlines import Deadlines, Timed
from serving.transport.frames import ErrorCode
from serving.transport.portions import MUCH, Portioned
from serving.transport.status import Code, RpcError
from serving.transport.streams import NOWHERE, ConnectionLimits, Stream, StreamOwner
from serving.transport.watch import Watch


class ClientCall(StreamOwner, Timed, Protocol):
    """A call on its stream."""

    def received_whole(self, head: Head, payload: bytes, last: Head) -> None: ...

    def abandon(self, error: RpcError) -> None: ...


class ClientProtocol(Portioned):
    """One connection to the target; all calls of one turn of the loop leave in one write. `lost` once it is gone."""

    def __init__(self, keepalive_s: float, keepalive_without_calls: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(NOWHERE, Head, ConnectionLimits(), self.loop.time, client=True)
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.lost = asyncio.Event()
        self._greeting: asyncio.Future[None] | None = self.loop.create_future()
        self._keepalive_s = keepalive_s
        self._keepalive_without_calls = keepalive_without_calls
        self._transport: asyncio.Transport | None = None
        self._opened_at = self._heard_at = self.loop.time()
        self._lost_at: float | None = None
        self._watch = Watch(self.connection, keepalive_s, self._opened_at)
        self._ticking: asyncio.TimerHandle | None = None
        self.deadlines = Deadlines(self.loop, self.connection.streams)

    @property
    def usable(self) -> bool:
        connection = self.connection
        lost = self._transport is None or connection.closed_reason is not None
        return not (lost or connection.draining or connection.exhausted)

    @property
    def lived_s(self) -> float:
        return (self.loop.time() if self._lost_at is None else self._lost_at) - self._opened_at

    @property
    def full(self) -> bool:
        return len(self.connection.streams) >= self.connection.peer_max_streams

    @property
    def load(self) -> int:
        """Calls that run or wait for room."""
        return len(self.connection.streams) + len(self.waiting)

    @property
    def speaks_http2(self) -> bool:
        """Without TLS by prior knowledge, with TLS by ALPN (RFC 9113, section 3.2)."""
        secured = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return secured is None or secured.selected_alpn_protocol() == HTTP2

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connection.plug(self)
        self._heard_at = self.loop.time()
        self._ticking = self.loop.call_later(self._keepalive_s, self._tick)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        before = self.connection.peer_max_streams
        self.connection.receive(data)
        if self.waiting and self.connection.peer_max_streams > before:
            self._admit_waiting(self.connection.peer_max_streams - before)
        self.flush()
        if self._greeting is not None:
            self._greet()
        if self.connection.more or len(data) >= MUCH:
            self.let_others()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        while self.connection.more:  # what came before the end may be answers
            self.connection.receive(b"")
        self._lost_at = self.loop.time()
        if self._ticking is not None:
            self._ticking.cancel()
        self.deadlines.cancel()
        self.connection.lost("the peer closed the connection")
        self.connection.plug(NOWHERE)
        self._admit_waiting(len(self.waiting))
        self.lost.set()
        if self._greeting is not None:
            self._greet()

    async def greeted(self) -> None:
        """Wait until the server has said its SETTINGS, or the connection is lost. A call made before may have been
        served by a server that closes without a word, or not: nobody could tell."""
        if self._greeting is not None:
            await asyncio.shield(self._greeting)

    def _greet(self) -> None:
        over = self.connection.settled or self.connection.closed_reason is not None
        if over and self._greeting is not None:
            self._greeting.set_result(None)
            self._greeting = None

    def pause_writing(self) -> None:
        self.connection.hold()
        self._watch.unread = True

    def resume_writing(self) -> None:
        self._watch.read_again(self.loop.time())
        self.connection.resume()
        self.flush()

    def _go_on(self) -> None:
        self.connection.go_on()
        self.flush()

    def flush(self) -> None:
        output = self.connection.take_output()
        if self._transport is None or self._transport.is_closing():  # a TLS transport takes no second close
            return
        if output:
            self._transport.write(output)
            self.connection.all_left()
            if self.connection.cut_short:
                self.connection.cut_short = False
                self.loop.call_soon(self._go_on)
        drained = self.connection.draining and not self.connection.streams
        if drained or self.connection.closed_reason is not None:
            self._transport.close()

    # --- its end ---

    def drain(self) -> None:
        """Take no more calls; close when those that run have ended."""
        self.connection.draining = True
        self._admit_waiting(len(self.waiting))
        self.flush()

    def close(self) -> None:
        """End every call, and say goodbye."""
        for call in self._calls():
            call.abandon(RpcError(Code.CANCELLED, "the channel is closed"))
        self.connection.close(ErrorCode.NO_ERROR, "the channel was closed")
        self.flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- calls ---

    async def room(self) -> None:
        """Wait until a call has ended, or none can be taken any more."""
        waiter = self.loop.create_future()
        self.waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self.waiting.remove(waiter)
            else:  # woken, and gone before it ran: the room is another's
                self._admit_waiting(1)
            raise

    def call_ended(self) -> None:
        if self.waiting:
            self._admit_waiting(1)
        if self.connection.draining:
            self.loop.call_soon(self.flush)

    def _calls(self) -> list[ClientCall]:
        owners = [stream.owner for stream in self.connection.streams.values()]
        return [cast(ClientCall, owner) for owner in owners if owner is not None]

    def _admit_waiting(self, count: int) -> None:
        while self.waiting and count > 0:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def _tick(self) -> None:
        self._ticking = self.loop.call_later(self._keepalive_s, self._tick)
        self.tick(self.loop.time())

    def tick(self, now: float) -> None:
        """Ask a silent peer whether it is there; give up one that does not answer, or does not go on."""
        stuck = self._watch.stuck(now, self._unsent)
        if stuck is not None:
            self._give_up(stuck)
            return
        nobody_asks = not (self.connection.streams or self._keepalive_without_calls)
        if nobody_asks or now - self._heard_at < self._keepalive_s:
            return
        if self.connection.pings_unanswered:
            self._give_up("the peer does not answer")
        else:
            self.connection.ping()

    def _give_up(self, reason: str) -> None:
        self.connection.lost(reason)
        self.abort()

    @property
    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._watch.unread and self._transport is not None else 0

    # --- streams.Endpoint ---

    def wake(self) -> None:
        self.loop.call_soon(self.flush)

    def opened(self, stream: Stream, head: Head, end: bool, payload: bytes) -> None:
        """Servers open no streams towards a client that forbids pushes."""

    def answered(self, stream: Stream, head: Head, payload: bytes, last: Head) -> None:
        cast(ClientCall, stream.owner).received_whole(head, payload, last)

    def head_too_large(self, stream: Stream) -> None:
        if stream.owner is not None:
            cast(ClientCall, stream.owner).abandon(RpcError(Code.RESOURCE_EXHAUSTED, "response headers too large"))

    def going_away(self) -> None:
        self._admit_waiting(len(self.waiting))
