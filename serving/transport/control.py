"""Frames of a connection that belong to no call: settings, pings, windows, its announced end (RFC 9113, section 6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from serving.transport import frames
from serving.transport.frames import ConnectionFault, ErrorCode, Setting, StreamFault
from serving.transport.sender import Sender
from serving.transport.streams import ConnectionLimits, Endpoint

_LAST_CALL = b"lastcall"
_REMEMBERED_GAPS = 64
_FEW_SETTINGS = 16
"""Of more in one frame only the last value of each counts: every new window is work for all streams."""
_FEW_SETTINGS_BYTES = 6 * _FEW_SETTINGS
"""To read so many more takes as long as any frame."""
_STREAMS_FOR_ONE_FRAME = 8
"""Another window for so many streams takes as long as any frame."""
_DEFAULT_TABLE_BYTES = 4096
_EMPTY_TABLE = b"\x20"
"""A table size update to nothing (RFC 7541, section 6.3)."""


class Control(Sender):
    """What both sides agreed on, and which streams there have been."""

    def __init__(self, endpoint: Endpoint, limits: ConnectionLimits, clock: Callable[[], float], client: bool) -> None:
        super().__init__(endpoint, limits, clock, client)
        self.peer_max_streams = 1 << 31
        self.draining = False
        self.closed_reason: str | None = None
        self.closed_code = ErrorCode.NO_ERROR
        self.pings_unanswered = 0
        self._expected: int | None = frames.SETTINGS
        """The only type that the next frame may have."""
        self._last_peer_stream = 0
        self._skipped: deque[range] = deque(maxlen=_REMEMBERED_GAPS)
        self._next_stream = 1
        self._first_unsent = 1
        """From here on the peer knows nothing of a client's streams."""

    @property
    def settled(self) -> bool:
        """The peer's first SETTINGS came."""
        return self._expected != frames.SETTINGS

    # --- what this side does ---

    @property
    def exhausted(self) -> bool:
        """No stream numbers are left; a new connection has some."""
        return self._next_stream > frames.MAX_STREAM_ID

    def close(self, code: ErrorCode, reason: str) -> None:
        """Say why, and end every stream. Idempotent."""
        if self.closed_reason is None:
            self.emit(frames.goaway(self._last_peer_stream, code, reason))
            self.closed_code = code
            self.lost(reason)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        if self.closed_reason is None:
            self.closed_reason = reason
        for stream in list(self.streams.values()):
            owner = self._forget(stream)
            if owner is not None:
                unseen = self._client and stream.id >= self._first_unsent
                owner.closed(ErrorCode.REFUSED_STREAM if unseen else ErrorCode.INTERNAL_ERROR)

    def all_left(self) -> None:
        """The output taken last was handed to the socket."""
        self._first_unsent = self._next_stream

    def bear(self) -> None:
        """Something of the peer's brought nothing; too much of that ends the connection."""
        try:
            self._patience.spend()
        except ConnectionFault as fault:
            self.close(fault.code, fault.reason)

    def plug(self, endpoint: Endpoint) -> None:
        """Tell this one from now on; NOWHERE while there is no socket, or the two would hold each other for ever."""
        self._endpoint = endpoint

    def ping(self) -> None:
        self.pings_unanswered += 1
        self.emit(frames.frame(frames.PING, 0, 0, b"tessera\x00"))

    def drain(self) -> None:
        """Announce the end (RFC 9113, section 6.8). Streams that cross the announcement are still taken: the last call
        comes when the peer has answered the ping that follows it."""
        if not self.draining:
            self.emit(frames.goaway(frames.MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self.emit(frames.frame(frames.PING, 0, 0, _LAST_CALL))

    def last_call(self) -> None:
        """Take no new streams; running ones go on."""
        if not self.draining:
            self.draining = True
            self.emit(frames.goaway(self._last_peer_stream, ErrorCode.NO_ERROR))
            self._endpoint.going_away()

    # --- what the peer does ---

    def _require_known(self, stream_id: int) -> None:
        ours = bool(stream_id & 1) == self._client
        if stream_id == 0 or stream_id >= (self._next_stream if ours else self._last_peer_stream + 1):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a frame for idle stream {stream_id}")

    def _stray(self, stream_id: int) -> None:
        """DATA or HEADERS for a stream that is closed or half-closed: late ones are common after a reset."""
        self._require_known(stream_id)
        self._patience.spend()
        ended_by_peer = not self._client and stream_id not in self._abandoned
        if stream_id in self.streams or ended_by_peer:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "a frame after the end of its stream")

    def _stray_block(self, stream_id: int) -> None:
        """Blocks of closed streams end the connection: an endpoint that opens streams twice has lost its way."""
        try:
            self._stray(stream_id)
        except StreamFault as fault:
            if stream_id in self.streams:
                raise
            unused = any(stream_id in gap for gap in self._skipped)
            code = ErrorCode.PROTOCOL_ERROR if unused else fault.code
            raise ConnectionFault(code, "HEADERS on a closed stream") from None

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._patience.spend()
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            if stream_id not in self.streams:  # perhaps idle, where no RST_STREAM may be sent
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS acknowledgement with a payload")
            self._patience.spend()
            return
        if self.settled:
            self._patience.spend(1 + len(payload) // _FEW_SETTINGS_BYTES)
        self._expected = None
        values = frames.parse_settings(payload)
        for key, value in dict(values).items() if len(values) > _FEW_SETTINGS else values:
            self._set(key, value)
        self.emit(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _set(self, key: int, value: int) -> None:
        if key == Setting.INITIAL_WINDOW_SIZE:
            self._set_initial_window(value)
        elif key == Setting.MAX_FRAME_SIZE:
            if not frames.MIN_FRAME_BYTES <= value <= frames.MAX_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a maximum frame of {value} bytes")
            self._peer_frame_bytes = value
            self._fit()
        elif key == Setting.MAX_CONCURRENT_STREAMS:
            self.peer_max_streams = value
        elif key == Setting.ENABLE_PUSH and value > (not self._client):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
        elif key == Setting.HEADER_TABLE_SIZE and value < _DEFAULT_TABLE_BYTES:
            self._table_update = _EMPTY_TABLE  # nothing is ever put into it, but the peer must hear that it shrank
            self._fit()

    def _set_initial_window(self, value: int) -> None:
        if value > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "an initial window beyond 2^31 - 1")
        change = value - self._peer_initial_window
        if not change:
            return
        self._patience.spend(len(self.streams) // _STREAMS_FOR_ONE_FRAME)
        self._peer_initial_window = value
        for stream in list(self.streams.values()):
            stream.send_window += change
            if stream.send_window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31 - 1")
            if stream.pending is not None and stream.send_window > 0:
                self._ready[stream.id] = stream
        self._pump_ready()

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE is not allowed here")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) != 8:
            code = ErrorCode.PROTOCOL_ERROR if stream_id else ErrorCode.FRAME_SIZE_ERROR
            raise ConnectionFault(code, "a malformed PING")
        if flags & frames.ACK:
            if not self.pings_unanswered:
                self._patience.spend()
            self.pings_unanswered = 0
            if payload == _LAST_CALL and not self._client:
                self.last_call()
        else:
            self._patience.spend()
            self.emit(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) < 8:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a malformed GOAWAY")
        self._patience.spend()
        self.draining = True
        last = frames.word(payload) & frames.MAX_STREAM_ID
        for stream in [stream for number, stream in self.streams.items() if self._client and number > last]:
            owner = self._forget(stream)
            if owner is not None:
                owner.closed(ErrorCode.REFUSED_STREAM)
        self._endpoint.going_away()

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        increment = frames.word(payload) & frames.MAX_WINDOW
        if stream_id:
            return self._open_stream_window(stream_id, increment)
        self._send_window += increment
        if not increment or self._send_window > frames.MAX_WINDOW:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise ConnectionFault(code, "a window update of nothing, or beyond 2^31 - 1")
        self._pump_ready()
        return None

    def _open_stream_window(self, stream_id: int, increment: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._patience.spend()
            return self._require_known(stream_id)
        stream.send_window += increment
        if not increment or stream.send_window > frames.MAX_WINDOW:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise StreamFault(stream_id, code, "a window update of nothing, or beyond 2^31 - 1")
        if stream.pending is not None:
            self._pump(stream)
        return None
