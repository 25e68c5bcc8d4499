"""The servicer of a party: one for all its peers and jobs. It hands what arrives to the channel it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from serving import transport
from tessera.v1 import training_pb2 as pb
from tessera.v1 import training_pb2_grpc as pb_grpc
from training.channel import ChannelError, IntegrityError
from training.channels import wire
from training.channels.endpoint import Endpoint
from training.channels.meeting import Meeting

MEET_HOLD_S = 5.0  # how long a call of Meet waits for this party to begin the job, before the peer calls again


class Seat:
    """An open channel of this party, as its servicer sees it."""

    def __init__(self, meeting: Meeting, spec_digest: str, endpoint: Endpoint) -> None:
        self.meeting = meeting
        self.spec_digest = spec_digest
        self.endpoint = endpoint
        self.met: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # the digest that the peer named
        self.reader: asyncio.Task[None] | None = None
        self.hellos = 0

    def meet(self, spec_digest: str) -> None:
        if not self.met.done():
            self.met.set_result(spec_digest)

    def end(self, error: ChannelError) -> None:
        self.endpoint.fail(error)
        if self.reader is not None:
            self.reader.cancel()
        if not self.met.done():
            self.met.set_exception(error)
            self.met.exception()  # nobody may be waiting for it


class Exchange(pb_grpc.PartyChannelServicer):
    """Register it with the party's server once; channels take and leave their seats.

    Where the transport knows the caller by its certificate, a message that names another party is refused.
    Stop the server with a grace after closing channels, so that the last acknowledgements get out.
    """

    def __init__(self, party: str) -> None:
        self.party = party
        self._seats: dict[tuple[str, str], Seat] = {}
        self._taken = asyncio.Event()

    def register(self, server: transport.Server) -> None:
        pb_grpc.add_PartyChannelServicer_to_server(self, server.registry)

    def take(self, seat: Seat) -> None:
        """Raises ChannelError if this attempt, or a later one, has a seat already."""
        meeting = seat.meeting
        key = (meeting.job, meeting.peer)
        present = self._seats.get(key)
        if present is not None:
            if present.meeting.attempt >= meeting.attempt:
                raise ChannelError(
                    f"party {self.party} has a channel to party {meeting.peer} in job {meeting.job} already"
                )
            present.end(present.meeting.superseded(meeting.attempt))
        self._seats[key] = seat
        self._taken.set()
        self._taken = asyncio.Event()

    def leave(self, seat: Seat) -> None:
        key = (seat.meeting.job, seat.meeting.peer)
        if self._seats.get(key) is seat:
            del self._seats[key]
        seat.end(seat.meeting.ended())

    async def Meet(self, request: pb.MeetRequest, context: Any) -> pb.MeetReply:
        _check_identity(request.party, context)
        seat = await self._await_seat(request)
        if request.attempt < seat.meeting.attempt:
            text = f"party {self.party} runs attempt {seat.meeting.attempt} of job {request.job}, not {request.attempt}"
            raise transport.RpcError(transport.Code.FAILED_PRECONDITION, text)
        seat.meet(request.spec_digest)
        return pb.MeetReply(spec_digest=seat.spec_digest, attempt=seat.meeting.attempt)

    async def Deliver(self, envelopes: AsyncIterable[pb.Envelope], context: Any) -> AsyncIterator[pb.Acknowledgement]:
        requests = aiter(envelopes)
        hello = await anext(requests, None)
        if hello is None:
            return
        _check_identity(hello.party, context)
        seat = self._seat(hello)
        if seat.reader is not None:
            seat.reader.cancel()  # a newer stream of the peer takes over
        reader = seat.reader = asyncio.create_task(_read(seat, requests))
        reader.add_done_callback(lambda _: seat.endpoint.incoming.set())  # wakes the loop below
        try:
            async for acknowledgement in _acknowledgements(seat, reader):
                yield acknowledgement
            if seat.reader is not reader:
                raise transport.RpcError(transport.Code.ABORTED, f"another stream of party {hello.party} took over")
        finally:
            reader.cancel()

    def _seat(self, hello: pb.Envelope) -> Seat:
        seat = self._seats.get((hello.job, hello.party))
        if seat is None or seat.meeting.attempt != hello.attempt:
            text = f"party {self.party} has no channel to {hello.party} in attempt {hello.attempt} of job {hello.job}"
            raise transport.RpcError(transport.Code.NOT_FOUND, text)
        return seat

    async def _await_seat(self, request: pb.MeetRequest) -> Seat:
        """The seat for this attempt or a later one; UNAVAILABLE when this party does not take it soon."""
        try:
            async with asyncio.timeout(MEET_HOLD_S):
                while True:
                    seat = self._seats.get((request.job, request.party))
                    if seat is not None and seat.meeting.attempt >= request.attempt:
                        return seat
                    if seat is not None:
                        seat.end(seat.meeting.superseded(request.attempt))
                    await self._taken.wait()
        except TimeoutError:
            text = f"party {self.party} has not begun job {request.job}"
            raise transport.RpcError(transport.Code.UNAVAILABLE, text) from None


def _check_identity(party: str, context: Any) -> None:
    identities = transport.call_of(context).peer_identities()
    if identities and party not in identities:
        text = f"the certificate does not belong to party {party}"
        raise transport.RpcError(transport.Code.PERMISSION_DENIED, text)


async def _read(seat: Seat, requests: AsyncIterator[pb.Envelope]) -> None:
    async for envelope in requests:
        if (envelope.job, envelope.party) != (seat.meeting.job, seat.meeting.peer):
            raise IntegrityError("an envelope names another job or party than its stream")
        if wire.is_hello(envelope):
            seat.hellos += 1
            seat.endpoint.incoming.set()
        else:
            seat.endpoint.deliver(wire.chunk(envelope))


async def _acknowledgements(seat: Seat, reader: asyncio.Task[None]) -> AsyncIterator[pb.Acknowledgement]:
    """One with all news and for every hello; ends with the reader, whose IntegrityError ends the call."""
    endpoint, told = seat.endpoint, None
    while True:
        finished = reader.done()
        endpoint.incoming.clear()
        next_position, credit_until = endpoint.acknowledgement()
        if (news := (next_position, credit_until, seat.hellos)) != told:
            told = news
            yield pb.Acknowledgement(next_position=next_position, credit_until=credit_until)
        if finished:
            break
        await endpoint.incoming.wait()
    if not reader.cancelled() and isinstance(error := reader.exception(), IntegrityError):
        raise transport.RpcError(transport.Code.INVALID_ARGUMENT, str(error))
