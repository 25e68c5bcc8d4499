"""The receiving end of a stream as a state machine without I/O: order, duplicates, attempts, digests, memory, credit.

Memory and credit. Chunks arrive in the order sent, so a message that somebody waits for may stand behind others that
nobody has asked for yet. Three rules keep memory bounded without a deadlock:

1. While nobody waits, credit ends where the buffer would pass `buffer_bytes`, counting every chunk at its full size.
2. While somebody waits for an incomplete message, credit always reaches `HUNGRY_CHUNKS` further. Bytes of awaited
   messages do not count against the buffer, so a message longer than the buffer arrives; what stands before it in the
   stream is taken in as well, as otherwise it could never come.
3. If all of it passes `max_bytes`, the waiting receivers fail with an error that says so, and rule 1 holds again.

Credit once given is never taken back. A sender that goes past it breaks the contract.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from training.channel import CHUNK_BYTES, ChannelError, IntegrityError, Tag
from training.channels.chunk import Chunk

HUNGRY_CHUNKS = 16
CHUNK_OVERHEAD_BYTES = 512  # what a chunk costs beside its payload, so that empty ones are not free


@dataclass(frozen=True, slots=True)
class InboxLimits:
    """`buffer_bytes` for messages that nobody waits for; `max_bytes` for everything that has not been taken."""

    buffer_bytes: int = 64 << 20
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if not CHUNK_BYTES <= self.buffer_bytes <= self.max_bytes:
            raise ValueError(f"buffer_bytes must be from {CHUNK_BYTES} to max_bytes, not {self.buffer_bytes}")


class _Message:
    """What has arrived of one message."""

    __slots__ = ("complete", "cost", "digest", "error", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.digest = hashlib.sha256()
        self.cost = 0
        self.complete = False
        self.error: IntegrityError | None = None

    def add(self, chunk: Chunk) -> None:
        self.pieces.append(chunk.payload)
        self.digest.update(chunk.payload)
        self.cost += len(chunk.payload) + CHUNK_OVERHEAD_BYTES
        if chunk.last:
            self.complete = True
            if self.digest.digest() != chunk.sha256:
                self.error = IntegrityError(f"message {chunk.tag} does not have the SHA-256 that its sender declared")


class _Rounds:
    """Rounds of one name that arrived in full: all below `below`, and `others`."""

    __slots__ = ("below", "others")

    def __init__(self) -> None:
        self.below = 0
        self.others: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number < self.below or number in self.others

    def add(self, number: int) -> None:
        self.others.add(number)
        while self.below in self.others:
            self.others.discard(self.below)
            self.below += 1


class Inbox:
    """One stream from one peer. Calls for one message: `expect`, then `take` until it gives the payload, then
    `dismiss`; `accept` at any time. Not thread-safe."""

    def __init__(self, limits: InboxLimits) -> None:
        self._limits = limits
        self._messages: dict[Tag, _Message] = {}
        self._finished: dict[tuple[str, str, str], _Rounds] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._awaited: set[Tag] = set()
        self._failed: dict[Tag, ChannelError] = {}
        self._held_bytes = 0
        self._unawaited_bytes = 0
        self._granted = 0
        self.next_position = 0

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def grant(self) -> int:
        """The credit to tell the sender: chunks at smaller positions may be sent."""
        free_bytes = self._limits.buffer_bytes - self._unawaited_bytes
        chunks = max(0, free_bytes // (CHUNK_BYTES + CHUNK_OVERHEAD_BYTES))
        if any(self._is_hungry(tag) for tag in self._awaited):
            chunks = max(chunks, HUNGRY_CHUNKS)
        self._granted = max(self._granted, self.next_position + chunks)
        return self._granted

    def accept(self, chunk: Chunk) -> list[Tag]:
        """Take a chunk in; returns the awaited tags whose `take` has news. Chunks seen before, of an older attempt or
        of a finished message are dropped. Raises IntegrityError when the stream cannot be right."""
        if chunk.position < self.next_position:
            return []
        self._check_place(chunk)
        self.next_position += 1
        tag = chunk.tag
        news = self._renew(tag)
        if tag.attempt < self._attempts[tag.job, tag.task] or self._is_finished(tag):
            return news
        message = self._messages.setdefault(tag, _Message())
        if chunk.seq > len(message.pieces):
            raise IntegrityError(f"chunk {chunk.seq} of {tag} came where {len(message.pieces)} was due")
        if chunk.seq == len(message.pieces):
            self._add(tag, message, chunk)
        if message.complete and tag in self._awaited:
            news.append(tag)
        return news + self._overflow()

    def expect(self, tag: Tag) -> None:
        """A receiver waits for this message from now on. Raises ChannelError when it can never come."""
        if tag in self._awaited:
            raise ChannelError(f"{tag} is being received already")
        self._renew(tag)
        newest = self._attempts[tag.job, tag.task]
        if tag.attempt < newest:
            raise ChannelError(f"{tag} belongs to an old attempt; attempt {newest} of this task runs")
        message = self._messages.get(tag)
        if message is None and self._is_finished(tag):
            raise ChannelError(f"{tag} was received before; every message is received once")
        self._awaited.add(tag)
        if message is not None:
            self._unawaited_bytes -= message.cost

    def take(self, tag: Tag) -> bytes | None:
        """The payload of an awaited message, or None while it is incomplete. Raises IntegrityError or ChannelError."""
        if tag in self._failed:
            raise self._failed[tag]
        message = self._messages.get(tag)
        if message is None or not message.complete:
            return None
        del self._messages[tag]
        self._held_bytes -= message.cost
        if message.error is not None:
            raise message.error
        return b"".join(message.pieces)

    def dismiss(self, tag: Tag) -> None:
        """The receiver waits no longer, with or without its message."""
        self._awaited.discard(tag)
        self._failed.pop(tag, None)
        message = self._messages.get(tag)
        if message is not None:
            self._unawaited_bytes += message.cost

    def _check_place(self, chunk: Chunk) -> None:
        if chunk.position > self.next_position:
            raise IntegrityError(f"position {chunk.position} came where {self.next_position} was due")
        if chunk.position >= self._granted:
            raise IntegrityError(f"position {chunk.position} was sent without credit, which ends at {self._granted}")
        if len(chunk.payload) > CHUNK_BYTES:
            raise IntegrityError(f"a chunk of {chunk.tag} has {len(chunk.payload)} bytes, at most {CHUNK_BYTES} may be")

    def _add(self, tag: Tag, message: _Message, chunk: Chunk) -> None:
        before = message.cost
        message.add(chunk)
        self._held_bytes += message.cost - before
        if tag not in self._awaited:
            self._unawaited_bytes += message.cost - before
        if message.complete:
            self._finished.setdefault((tag.job, tag.task, tag.name), _Rounds()).add(tag.round)

    def _is_finished(self, tag: Tag) -> bool:
        return tag.round in self._finished.get((tag.job, tag.task, tag.name), ())

    def _is_hungry(self, tag: Tag) -> bool:
        message = self._messages.get(tag)
        return tag not in self._failed and (message is None or not message.complete)

    def _renew(self, tag: Tag) -> list[Tag]:
        """A task's first sign of a newer attempt ends the older ones: their chunks go, their receivers fail."""
        task = (tag.job, tag.task)
        if tag.attempt <= self._attempts.get(task, -1):
            return []
        self._attempts[task] = tag.attempt
        for key in [key for key in self._finished if key[:2] == task]:
            del self._finished[key]
        for old in [old for old in self._messages if (old.job, old.task) == task]:
            self._discard(old)
        text = f"attempt {tag.attempt} of this task has begun"
        return self._fail([old for old in self._awaited if (old.job, old.task) == task], text)

    def _discard(self, tag: Tag) -> None:
        message = self._messages.pop(tag)
        self._held_bytes -= message.cost
        if tag not in self._awaited:
            self._unawaited_bytes -= message.cost

    def _overflow(self) -> list[Tag]:
        if self._held_bytes <= self._limits.max_bytes:
            return []
        text = f"more than {self._limits.max_bytes} bytes arrived before it was complete; receive in the order sent"
        return self._fail([tag for tag in self._awaited if self._is_hungry(tag)], text)

    def _fail(self, tags: list[Tag], text: str) -> list[Tag]:
        self._failed.update({tag: ChannelError(f"{tag} cannot be received: {text}") for tag in tags})
        return tags
