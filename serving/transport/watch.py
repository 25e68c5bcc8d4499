"""How long a peer may leave something unfinished: its handshake, a header block, a frame, replies that wait for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from serving.transport.connection import Connection

HANDSHAKE_S = 10.0
_BLOCK_S = 10.0
_STALL_S = 60.0


class _Unfinished:
    """Something that must go on: its mark changes with every step."""

    __slots__ = ("_limit_s", "_mark", "_since", "reason")

    def __init__(self, reason: str, limit_s: float, now: float) -> None:
        self.reason = reason
        self._limit_s = limit_s
        self._mark = -1
        self._since = now

    def overdue(self, unfinished: bool, mark: int, now: float) -> bool:
        if not unfinished or mark != self._mark:
            self._mark, self._since = mark, now
        return now - self._since > self._limit_s


class Watch:
    """Looks at one connection from time to time. Bytes that come one by one, however regularly, are no progress.

    While the socket takes no output, the peer is not read either, and cannot be heard: then it is `unread`, and what
    counts is how much of the output it takes."""

    __slots__ = ("_block", "_connection", "_frame", "_keepalive_s", "_opened_at", "_output", "_pauses", "_replies",
        "_unsent", "heard_at", "unread")  # fmt: skip

    def __init__(self, connection: Connection, keepalive_s: float, now: float) -> None:
        self.heard_at = self._opened_at = now
        self.unread = False
        self._connection = connection
        self._keepalive_s = keepalive_s
        self._block = _Unfinished("slow headers", _BLOCK_S, now)
        self._frame = _Unfinished("slow frame", _STALL_S, now)
        self._replies = _Unfinished("stalled", _STALL_S, now)
        self._output = _Unfinished("stalled", _STALL_S, now)
        self._unsent = self._pauses = 0

    def verdict(self, now: float, unsent: int = 0) -> str | None:
        """Why to give the peer up; None to go on. `unsent` bytes wait in the socket."""
        connection = self._connection
        if not connection.settled:
            return "handshake timeout" if now - self._opened_at > HANDSHAKE_S else None
        if self._replies.overdue(connection.pending_bytes > 0 and not self.unread, connection.bytes_pumped, now):
            return self._replies.reason
        silent = not self.unread and now - self.heard_at > 2 * self._keepalive_s
        return self.stuck(now, unsent) or ("silent" if silent else None)

    def stuck(self, now: float, unsent: int = 0) -> str | None:
        """The part of the verdict that no patience with a handler excuses, and so a client's of its server."""
        connection = self._connection
        late = (
            self._block.overdue(connection.inside_block and not self.unread, connection.blocks_begun, now),
            self._frame.overdue(connection.inside_frame and not self.unread, connection.bytes_taken, now),
            self._output.overdue(self.unread and not self._takes(unsent), self._pauses, now),
        )
        stages = (self._block, self._frame, self._output)
        return next((stage.reason for stage, overdue in zip(stages, late, strict=True) if overdue), None)

    def _takes(self, unsent: int) -> bool:
        """The peer took some of the output since the last look; what was added meanwhile is no merit of its."""
        before, self._unsent = self._unsent, unsent
        return unsent < before

    def should_ask(self, now: float) -> bool:
        """The peer has been silent, and was not asked yet whether it is there."""
        silent = now - self.heard_at > self._keepalive_s and not self.unread
        return silent and not self._connection.pings_unanswered

    def read_again(self, now: float) -> None:
        self.unread = False
        self.heard_at = now
        self._pauses += 1


class Upload(Protocol):
    """A call whose request may still be on its way. `arrived` counts its bytes."""

    deadline: float | None

    @property
    def arrived(self) -> int: ...

    @property
    def awaits_request(self) -> bool:
        """More must come before anything can be done, and the peer may send it."""


U = TypeVar("U", bound=Upload)


class Uploads(Generic[U]):
    """Requests that do not go on, of callers who set no deadline: nothing else would end them."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[U, _Unfinished] = {}

    def overdue(self, calls: Iterable[U], now: float) -> list[U]:
        seen, self._seen = self._seen, {}
        late = []
        for call in calls:
            if call.deadline is None and call.awaits_request:
                self._seen[call] = stage = seen.get(call) or _Unfinished("stalled", _STALL_S, now)
                if stage.overdue(True, call.arrived, now):
                    late.append(call)
        return late
