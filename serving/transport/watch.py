"""How long a peer may leave something unfinished: its handshake, a header block, a frame, replies that wait for it."""

from __future__ import annotations

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
    """Looks at one connection from time to time. Bytes that come one by one, however regularly, are no progress."""

    __slots__ = ("_block", "_connection", "_frame", "_keepalive_s", "_opened_at", "_replies", "heard_at")

    def __init__(self, connection: Connection, keepalive_s: float, now: float) -> None:
        self.heard_at = self._opened_at = now
        self._connection = connection
        self._keepalive_s = keepalive_s
        self._block = _Unfinished("slow headers", _BLOCK_S, now)
        self._frame = _Unfinished("slow frame", _STALL_S, now)
        self._replies = _Unfinished("stalled", _STALL_S, now)

    def verdict(self, now: float) -> str | None:
        """Why to give the peer up; None to go on."""
        connection = self._connection
        if not connection.settled:
            return "handshake timeout" if now - self._opened_at > HANDSHAKE_S else None
        late = (
            self._block.overdue(connection.inside_block, connection.blocks_begun, now),
            self._frame.overdue(connection.inside_frame, connection.bytes_taken, now),
            self._replies.overdue(connection.pending_bytes > 0, connection.bytes_pumped, now),
        )
        for stage, overdue in zip((self._block, self._frame, self._replies), late, strict=True):
            if overdue:
                return stage.reason
        return "silent" if now - self.heard_at > 2 * self._keepalive_s else None

    def should_ask(self, now: float) -> bool:
        """The peer has been silent, and was not asked yet whether it is there."""
        return now - self.heard_at > self._keepalive_s and not self._connection.pings_unanswered
