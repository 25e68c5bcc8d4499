"""The sending end of a stream as a state machine without I/O: what to send next, what to send again, what is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from training.channel import ChannelError, IntegrityError, Tag
from training.channels.chunk import Chunk, split


class Outbox:
    """One stream to one peer. A chunk is kept from when `next_chunk` first gave it until it is acknowledged."""

    def __init__(self) -> None:
        self._messages: deque[tuple[Tag, bytes]] = deque()
        self._current: Iterator[Chunk] | None = None
        self._unacknowledged: deque[Chunk] = deque()
        self._sent = 0  # how many of the unacknowledged went out on the present connection
        self._next_position = 0
        self._credit_until = 0
        self.unsent_bytes = 0

    @property
    def is_empty(self) -> bool:
        """Everything put in was acknowledged."""
        return not (self._unacknowledged or self._current or self._messages)

    def put(self, tag: Tag, payload: bytes) -> None:
        self._messages.append((tag, payload))
        self.unsent_bytes += len(payload)

    def next_chunk(self) -> Chunk | None:
        """What to send now; None without credit or without anything to send."""
        if self._sent == len(self._unacknowledged) and not self._cut():
            return None
        self._sent += 1
        return self._unacknowledged[self._sent - 1]

    def acknowledge(self, next_position: int, credit_until: int) -> None:
        """The peer has everything before `next_position`. Raises IntegrityError if that was never sent."""
        if next_position > self._next_position:
            raise IntegrityError(f"the peer acknowledges position {next_position}, sent were {self._next_position}")
        while self._unacknowledged and self._unacknowledged[0].position < next_position:
            self._unacknowledged.popleft()
            self._sent = max(0, self._sent - 1)
        self._credit_until = max(self._credit_until, credit_until)

    def resume(self, next_position: int, credit_until: int) -> None:
        """A new connection stands: what is not acknowledged goes out again. Raises ChannelError if the peer has lost
        what it acknowledged before."""
        first = self._next_position - len(self._unacknowledged)
        if next_position < first:
            raise ChannelError(
                f"the peer lost what it had received: it asks for {next_position}, acknowledged were {first}"
            )
        self._sent = 0
        self.acknowledge(next_position, credit_until)

    def _cut(self) -> bool:
        """Make the next chunk, if there is one and credit for it."""
        if self._next_position >= self._credit_until:
            return False
        if self._current is None:
            if not self._messages:
                return False
            self._current = split(*self._messages.popleft(), self._next_position)
        chunk = next(self._current)
        if chunk.last:
            self._current = None
        self._unacknowledged.append(chunk)
        self._next_position += 1
        self.unsent_bytes -= len(chunk.payload)
        return True
