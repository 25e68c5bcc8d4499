"""The channel between two processes. Each party sends on a stream that it opens at the other.

The stream opens with an envelope that says whose it is; the first acknowledgement says where to go on. A stream that
breaks is opened again with pauses, and what was not acknowledged is sent again, until `lost_after_s` have passed
without a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving import transport
from tessera.v1 import training_pb2 as pb
from tessera.v1 import training_pb2_grpc as pb_grpc
from training.channel import Channel, ChannelError, PeerLostError, Tag
from training.channels import wire
from training.channels.endpoint import Endpoint
from training.channels.exchange import MEET_HOLD_S, Exchange, Seat
from training.channels.inbox import InboxLimits
from training.channels.meeting import Meeting
from training.channels.patience import Patience

T = TypeVar("T")

TRY_AGAIN = frozenset(
    {
        transport.Code.UNAVAILABLE,
        transport.Code.CANCELLED,
        transport.Code.DEADLINE_EXCEEDED,
        transport.Code.INTERNAL,
        transport.Code.UNKNOWN,
        transport.Code.RESOURCE_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class GrpcChannelOptions:
    """`keepalive_s`: after this long without anything to send the peer is asked for a sign of life; one that is silent
    for twice as long, or cannot take 1 MiB in that time, is disconnected. After `lost_after_s` more it is lost."""

    lost_after_s: float = 15.0
    close_timeout_s: float = 30.0
    keepalive_s: float = 5.0
    limits: InboxLimits = field(default_factory=InboxLimits)
    kind: transport.Transport = transport.Transport.NATIVE


class GrpcChannel(Channel):
    """`target` is the address, host:port, where the peer's exchange listens."""

    def __init__(
        self,
        exchange: Exchange,
        meeting: Meeting,
        target: str,
        options: GrpcChannelOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.peer = meeting.peer
        self._exchange = exchange
        self._meeting = meeting
        self._target = target
        self._options = options or GrpcChannelOptions()
        self._clock = clock
        self.endpoint = Endpoint(meeting.peer, self._options.limits)
        self._seat: Seat | None = None
        self._sender: asyncio.Task[None] | None = None

    async def open(self, spec_digest: str, timeout_s: float) -> None:
        seat = Seat(self._meeting, spec_digest, self.endpoint)
        self._exchange.take(seat)
        self._seat = seat
        try:
            async with asyncio.timeout(timeout_s):
                self._meeting.compare(spec_digest, await self._meet(seat))
        except BaseException as error:
            await self._release()
            if isinstance(error, TimeoutError):
                raise self._meeting.absent(timeout_s) from None
            raise
        self._sender = asyncio.create_task(self._keep_sending())
        self._sender.add_done_callback(self._sender_ended)

    async def send(self, tag: Tag, payload: bytes) -> None:
        self._meeting.check(tag)
        await self.endpoint.send(tag, payload)

    async def receive(self, tag: Tag, timeout_s: float) -> bytes:
        return await self.endpoint.receive(tag, timeout_s)

    async def close(self) -> None:
        if self._seat is None:
            return
        try:
            await self.endpoint.flush(self._options.close_timeout_s)
        finally:
            await self._release()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[pb_grpc.PartyChannelStub]:
        """A connection of its own: after silence the old one may be dead without the transport knowing it."""
        options = transport.ChannelOptions(keepalive_s=self._options.keepalive_s, backoff_max_s=1.0)
        connection = transport.channel(self._options.kind, self._target, options)
        try:
            yield pb_grpc.PartyChannelStub(connection.stub_channel)
        finally:
            await connection.close()

    async def _meet(self, seat: Seat) -> str:
        """The peer's digest. Either direction tells it: a peer that has met us may be done before we reach it."""
        asking = asyncio.create_task(self._ask(seat.spec_digest))
        try:
            done, _ = await asyncio.wait({asking, seat.met}, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self, spec_digest: str) -> str:
        meeting = self._meeting
        request = pb.MeetRequest(job=meeting.job, party=meeting.party, spec_digest=spec_digest, attempt=meeting.attempt)
        patience = Patience(float("inf"), self._clock)  # the caller's timeout ends it
        while True:
            try:
                async with self._connected() as stub:
                    reply: pb.MeetReply = await stub.Meet(request, timeout=2 * MEET_HOLD_S)
                    return reply.spec_digest
            except transport.RpcError as error:
                pause_s = patience.pause_s() if error.code in TRY_AGAIN else None
                if pause_s is None:
                    raise self._refusal(error) from None
            await asyncio.sleep(pause_s)

    async def _keep_sending(self) -> None:
        """Until the peer closes its end, refuses, or is lost; each ends the channel."""
        patience = Patience(self._options.lost_after_s, self._clock)
        while True:
            try:
                async with self._connected() as stub:
                    await self._stream(stub.Deliver(), patience)
                return self.endpoint.fail(self._meeting.closed())
            except ChannelError as error:
                return self.endpoint.fail(PeerLostError(f"party {self.peer}: {error}"))
            except transport.RpcError as error:
                pause_s = patience.pause_s() if error.code in TRY_AGAIN else None
                if pause_s is None:
                    return self.endpoint.fail(self._verdict(error))
            await asyncio.sleep(pause_s)

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        if not sender.cancelled() and (error := sender.exception()) is not None:
            self.endpoint.fail(ChannelError(f"sending to party {self.peer} failed: {error!r}"))

    async def _stream(self, call: Any, patience: Patience) -> None:
        """One connection; returns when the peer ends it in order. Raises RpcError or ChannelError."""
        writer: asyncio.Task[None] | None = None
        try:
            await self._unless_silent(call.write(wire.hello(self._meeting)))
            told = await self._unless_silent(call.read())
            if told is None:
                return
            patience.succeeded()
            self.endpoint.resume(told.next_position, told.credit_until)
            writer = asyncio.create_task(self._write(call))
            while (told := await self._unless_silent(call.read())) is not None:
                self.endpoint.acknowledge(told.next_position, told.credit_until)
        finally:
            if writer is not None:
                writer.cancel()
            call.cancel()
            await asyncio.gather(*filter(None, [writer]), return_exceptions=True)

    async def _unless_silent(self, operation: Coroutine[Any, Any, T]) -> T:
        """A peer that says nothing for twice the time after which it was asked to is not there: the transport's own
        probes may take a minute to find that."""
        silence_s = 2 * self._options.keepalive_s
        try:
            async with asyncio.timeout(silence_s):
                return await operation
        except TimeoutError:
            raise transport.RpcError(transport.Code.UNAVAILABLE, f"silent for {silence_s:g} s") from None

    async def _write(self, call: Any) -> None:
        """What there is to send, and a hello when nothing went out for a while, be it for want of credit."""
        loop = asyncio.get_running_loop()
        ask_at = loop.time() + self._options.keepalive_s
        while True:
            self.endpoint.outgoing.clear()
            while (chunk := self.endpoint.next_chunk()) is not None:
                await call.write(wire.envelope(chunk, self._meeting.party))
                ask_at = loop.time() + self._options.keepalive_s
            try:
                async with asyncio.timeout_at(ask_at):
                    await self.endpoint.outgoing.wait()
            except TimeoutError:
                await call.write(wire.hello(self._meeting))
                ask_at = loop.time() + self._options.keepalive_s

    def _refusal(self, error: transport.RpcError) -> ChannelError:
        return ChannelError(f"party {self.peer} at {self._target} refuses job {self._meeting.job}: {error.details}")

    def _verdict(self, error: transport.RpcError) -> ChannelError:
        """Why there will be no further attempt to reach the peer."""
        if error.code is transport.Code.NOT_FOUND:  # it had the channel open when we met, and has not now
            return self._meeting.closed()
        if error.code not in TRY_AGAIN:
            return self._refusal(error)
        return PeerLostError(
            f"party {self.peer} at {self._target} is lost: no connection for {self._options.lost_after_s:g} s "
            f"({error.details})"
        )

    async def _release(self) -> None:
        seat, self._seat = self._seat, None
        sender, self._sender = self._sender, None
        if seat is not None:
            self._exchange.leave(seat)
        if sender is not None:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender
