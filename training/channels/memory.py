"""Channels between parties of one process: the twin of the gRPC channel, for the one-process mode and for tests."""

from __future__ import annotations

import asyncio

from training.channel import Channel, ChannelError, Tag
from training.channels.endpoint import Endpoint
from training.channels.inbox import InboxLimits
from training.channels.meeting import Meeting

CLOSE_TIMEOUT_S = 30.0


class MemoryHub:
    """Where the parties of one process meet. All their channels come from the same hub."""

    def __init__(self, limits: InboxLimits | None = None) -> None:
        self._limits = limits or InboxLimits()
        self._open: dict[tuple[str, str, str], MemoryChannel] = {}

    def channel(self, meeting: Meeting) -> MemoryChannel:
        """`meeting.party`'s end."""
        return MemoryChannel(self, meeting, self._limits)

    def enter(self, channel: MemoryChannel) -> MemoryChannel | None:
        """Make the channel known; returns the other end if that is open. Raises ChannelError."""
        meeting = channel.meeting
        key = (meeting.job, meeting.party, meeting.peer)
        present = self._open.get(key)
        if present is not None and present.meeting.attempt >= meeting.attempt:
            raise ChannelError(
                f"party {meeting.party} has a channel to party {meeting.peer} in job {meeting.job} already"
            )
        if present is not None:
            present.end(meeting.superseded(meeting.attempt))
        self._open[key] = channel
        return self._open.get((meeting.job, meeting.peer, meeting.party))

    def leave(self, channel: MemoryChannel) -> None:
        meeting = channel.meeting
        key = (meeting.job, meeting.party, meeting.peer)
        if self._open.get(key) is channel:
            del self._open[key]


class MemoryChannel(Channel):
    """Same rules as on the wire: chunks, credit, one delivery. What is sent is copied."""

    def __init__(self, hub: MemoryHub, meeting: Meeting, limits: InboxLimits) -> None:
        self.peer = meeting.peer
        self.meeting = meeting
        self.endpoint = Endpoint(meeting.peer, limits)
        self.spec_digest = ""
        self._hub = hub
        self._other: asyncio.Future[MemoryChannel] | None = None
        self._carrier: asyncio.Task[None] | None = None

    async def open(self, spec_digest: str, timeout_s: float) -> None:
        self.spec_digest = spec_digest
        self._other = asyncio.get_running_loop().create_future()
        present = self._hub.enter(self)
        try:
            if present is not None:
                present.meet(self)
                self.meet(present)
            async with asyncio.timeout(timeout_s):
                other = await self._other
            self.meeting.compare(spec_digest, other.spec_digest)
        except BaseException as error:
            self._hub.leave(self)
            if isinstance(error, TimeoutError):
                raise self.meeting.absent(timeout_s) from None
            raise
        self._carrier = asyncio.create_task(_carry(self.endpoint, other.endpoint))

    def meet(self, other: MemoryChannel) -> None:
        """The other end is there. An older attempt of it does not count; a newer one ends this one."""
        if other.meeting.attempt > self.meeting.attempt:
            self.end(self.meeting.superseded(other.meeting.attempt))
        elif other.meeting.attempt == self.meeting.attempt and self._other is not None and not self._other.done():
            self._other.set_result(other)

    def end(self, error: ChannelError) -> None:
        self.endpoint.fail(error)
        if self._other is not None and not self._other.done():
            self._other.set_exception(error)

    async def send(self, tag: Tag, payload: bytes) -> None:
        self.meeting.check(tag)
        await self.endpoint.send(tag, payload)

    async def receive(self, tag: Tag, timeout_s: float) -> bytes:
        return await self.endpoint.receive(tag, timeout_s)

    async def close(self) -> None:
        carrier, self._carrier = self._carrier, None
        if carrier is None or self._other is None:
            return
        try:
            await self.endpoint.flush(CLOSE_TIMEOUT_S)
        finally:
            self._hub.leave(self)
            carrier.cancel()
            other = self._other.result()
            other.end(other.meeting.closed())
            self.endpoint.fail(self.meeting.ended())


async def _carry(source: Endpoint, target: Endpoint) -> None:
    """Move chunks from one end to the other as credit allows, and the acknowledgements back."""
    target.incoming = source.outgoing  # one signal for both: there is something to do
    while not source.has_failed:
        source.acknowledge(*target.acknowledgement())
        source.outgoing.clear()
        chunk = source.next_chunk()
        if chunk is None:
            await source.outgoing.wait()
            continue
        target.deliver(chunk)
        source.acknowledge(*target.acknowledgement())
        await asyncio.sleep(0)  # let the others run
