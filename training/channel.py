"""The contract of a channel: ordered, tagged messages between two parties of one job.

A message is addressed by its tag (job, task, attempt, name, round). Delivery is at least once on the wire and
exactly once to the component: duplicates are dropped by (tag, seq). A message of an older attempt is rejected.
On the wire a message travels as chunks of at most `CHUNK_BYTES` with credit-based back-pressure, so memory is bounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tag:
    """Address of one message. `round` counts from 0 and distinguishes repetitions of one `name` within a task."""

    job: str
    task: str
    attempt: int
    name: str
    round: int

    def __str__(self) -> str:
        return f"{self.job}/{self.task}#{self.attempt}/{self.name}[{self.round}]"


class ChannelError(Exception):
    """A channel cannot do what was asked; the text names the peer, the tag and what to do."""


class ReceiveTimeoutError(ChannelError):
    """No message with this tag arrived in time: the peer died, is slow, or never sends it."""


class PeerLostError(ChannelError):
    """The peer cannot be reached, and reconnecting did not help within the allowed time."""


class IntegrityError(ChannelError):
    """A message does not have the SHA-256 that its envelope declares, or its chunks do not fit together."""


class SpecMismatchError(ChannelError):
    """The peer runs another specification under the same job id."""


class Channel(ABC):
    """Messages to and from one peer. All methods run on one event loop; several tasks may use one channel.

    Order of calls: `open` once (exchanges the digest of the job specification with the peer before anything else),
    then `send` and `receive` in any number, then `close` once. Whoever opened the channel closes it.
    """

    peer: str

    @abstractmethod
    async def open(self, spec_digest: str, timeout_s: float) -> None:
        """Meet the peer and compare `spec_digest` (hex SHA-256). Raises SpecMismatchError or PeerLostError."""

    @abstractmethod
    async def send(self, tag: Tag, payload: bytes) -> None:
        """Hand `payload` over for delivery; waits only for credit. Raises PeerLostError."""

    @abstractmethod
    async def receive(self, tag: Tag, timeout_s: float) -> bytes:
        """The payload sent under `tag`, once. Raises ReceiveTimeoutError, IntegrityError or PeerLostError."""

    @abstractmethod
    async def close(self) -> None:
        """Wait until everything sent is acknowledged (bounded), then release the connection. Idempotent."""
