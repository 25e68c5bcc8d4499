"""What a connection knows of its streams, and the ports to what is above it: calls, and the socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from serving.transport.frames import ErrorCode


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one side allows the other. `max_header_block_bytes` bounds HEADERS and its CONTINUATIONs together."""

    max_streams: int = 1024
    window_bytes: int = 65_535
    connection_window_bytes: int = 4 << 20
    max_header_list_bytes: int = 16_384
    max_header_block_bytes: int = 65_536
    max_continuations: int = 16


class StreamOwner(Protocol):
    """The call that lives on a stream. Nothing is called after `closed`."""

    def received_head(self, head: Any, end: bool) -> None:
        """Another header block: a client's response or trailers, a server's trailers."""

    def received_data(self, payload: bytes, end: bool) -> None: ...

    def writable(self) -> None:
        """All that was sent has left this side's windows."""

    def closed(self, code: ErrorCode) -> None:
        """The stream ended early: reset by the peer, or the connection is gone."""


class Endpoint(Protocol):
    """What a connection tells the socket that carries it."""

    def wake(self) -> None:
        """There is output to take."""

    def opened(self, stream: Stream, head: Any, end: bool, payload: bytes) -> None:
        """A server's new stream; sets its owner, or answers at once. `payload` is data that came with it."""

    def answered(self, stream: Stream, head: Any, payload: bytes, last: Any) -> None:
        """A client's response came whole, in one piece of data. The stream has ended."""

    def head_too_large(self, stream: Stream) -> None: ...

    def going_away(self) -> None:
        """No new streams from here on: the peer said so, or was told so."""


class Stream:
    """One request and its response. `pending` waits for the peer's window; the block `last` follows it, or nothing but
    the end. `owed` is what the peer's content-length still promises; None without one."""

    __slots__ = (
        "id", "last", "owed", "owner", "pending", "receive_window", "receiving", "send_window", "sending", "unreturned",
    )  # fmt: skip

    def __init__(self, stream_id: int, send_window: int, receive_window: int) -> None:
        self.id = stream_id
        self.owner: StreamOwner | None = None
        self.send_window = send_window
        self.receive_window = receive_window
        self.unreturned = 0
        self.receiving = True
        self.sending = True
        self.pending: bytearray | None = None
        self.last: bytes | None = None
        self.owed: int | None = None


class _Nowhere:
    """Where there is no socket."""

    def wake(self) -> None: ...

    def opened(self, stream: Stream, head: Any, end: bool, payload: bytes) -> None: ...

    def answered(self, stream: Stream, head: Any, payload: bytes, last: Any) -> None: ...

    def head_too_large(self, stream: Stream) -> None: ...

    def going_away(self) -> None: ...


NOWHERE: Endpoint = _Nowhere()
