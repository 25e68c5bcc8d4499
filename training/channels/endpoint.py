"""One party's end of a channel: inbox and outbox with the waiting of tasks around them. The wire is outside."""

from __future__ import annotations

import asyncio

from training.channel import ChannelError, PeerLostError, ReceiveTimeoutError, Tag
from training.channels.chunk import Chunk
from training.channels.inbox import Inbox, InboxLimits
from training.channels.outbox import Outbox

QUEUE_BYTES = 16 << 20


class Endpoint:
    """Used on one event loop. The wire waits for `outgoing` and asks `next_chunk`, and waits for `incoming` and tells
    the peer `acknowledgement()`; it clears either event before it looks.

    `send` waits while more than QUEUE_BYTES stand before the new message unsent, so two parties that both send one
    message of any size before they receive do not block each other. Two that send many must receive meanwhile.
    """

    def __init__(self, peer: str, limits: InboxLimits) -> None:
        self.peer = peer
        self.outgoing = asyncio.Event()
        self.incoming = asyncio.Event()
        self._inbox = Inbox(limits)
        self._outbox = Outbox()
        self._arrived: dict[Tag, asyncio.Event] = {}
        self._moved = asyncio.Event()  # the outbox has moved on
        self._failure: ChannelError | None = None
        self._failure_told = False

    async def send(self, tag: Tag, payload: bytes) -> None:
        while self._failure is None and self._outbox.unsent_bytes > QUEUE_BYTES:
            self._moved.clear()
            await self._moved.wait()
        self._raise_failure()
        self._outbox.put(tag, bytes(payload))
        self.outgoing.set()

    async def receive(self, tag: Tag, timeout_s: float) -> bytes:
        self._inbox.expect(tag)
        self.incoming.set()
        self._arrived[tag] = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._take(tag)
        except TimeoutError:
            raise ReceiveTimeoutError(
                f"no message {tag} from party {self.peer} within {timeout_s:g} s: it died, is slow, or never sends it"
            ) from None
        finally:
            del self._arrived[tag]
            self._inbox.dismiss(tag)
            self.incoming.set()

    async def flush(self, timeout_s: float) -> None:
        """Wait until all that was sent is acknowledged. Raises PeerLostError when that does not come about,
        unless a call has already raised why."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._failure is None and not self._outbox.is_empty:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass
        if not self._outbox.is_empty and not self._failure_told:
            reason = self._failure or f"no acknowledgement within {timeout_s:g} s"
            raise PeerLostError(f"party {self.peer} did not get everything that was sent to it: {reason}")

    def fail(self, error: ChannelError) -> None:
        """From now on every call raises `error`; messages that have arrived can still be received. The first counts."""
        if self._failure is None:
            self._failure = error
        self._moved.set()
        for arrived in self._arrived.values():
            arrived.set()

    @property
    def held_bytes(self) -> int:
        """What has arrived and was not received yet."""
        return self._inbox.held_bytes

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    def deliver(self, chunk: Chunk) -> None:
        """A chunk from the peer. Raises IntegrityError."""
        for tag in self._inbox.accept(chunk):
            if tag in self._arrived:
                self._arrived[tag].set()
        self.incoming.set()

    def acknowledgement(self) -> tuple[int, int]:
        """What to tell the peer: next position, credit until."""
        return self._inbox.next_position, self._inbox.grant()

    def next_chunk(self) -> Chunk | None:
        chunk = self._outbox.next_chunk()
        if chunk is not None:
            self._moved.set()
        return chunk

    def acknowledge(self, next_position: int, credit_until: int) -> None:
        """What the peer tells. Raises IntegrityError."""
        self._outbox.acknowledge(next_position, credit_until)
        self._moved.set()
        self.outgoing.set()

    def resume(self, next_position: int, credit_until: int) -> None:
        """What the peer tells on a new connection. Raises ChannelError."""
        self._outbox.resume(next_position, credit_until)
        self.acknowledge(next_position, credit_until)

    async def _take(self, tag: Tag) -> bytes:
        arrived = self._arrived[tag]
        while (payload := self._inbox.take(tag)) is None:
            self._raise_failure()
            arrived.clear()
            await arrived.wait()
        return payload

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._failure_told = True
            raise type(self._failure)(str(self._failure))
