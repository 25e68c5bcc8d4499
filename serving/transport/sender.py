"""The sending half of a connection: output, windows of the peer, and streams that wait for them."""

from __future__ import annotations

from collections.abc import Callable

from serving.transport import frames
from serving.transport.frames import ErrorCode
from serving.transport.patience import Patience
from serving.transport.streams import ConnectionLimits, Endpoint, Stream, StreamOwner

_TURN_BYTES = 1 << 20
"""Of data that waited, the most that leaves in one turn of the loop: other connections have theirs."""


class Sender:
    """Output gathers in `take_output`; `Endpoint.wake` is called once when there is some."""

    def __init__(self, endpoint: Endpoint, limits: ConnectionLimits, clock: Callable[[], float], client: bool) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.pending_bytes = 0
        self._endpoint = endpoint
        self._client = client
        self._patience = Patience(clock)
        self._out: list[bytes] = []
        self._awake = False
        self._send_window = self._peer_initial_window = frames.DEFAULT_WINDOW
        self._peer_frame_bytes = frames.MIN_FRAME_BYTES
        self._at_once_bytes = self._peer_frame_bytes
        """The most that may leave as a whole message: one frame, or nothing while held or `_table_update` is due."""
        self.bytes_pumped = 0
        self.cut_short = False
        """Data waits for `go_on`, and for nothing else."""
        self._held = False
        self._turn_left = _TURN_BYTES
        self._ready: dict[int, Stream] = {}
        """Streams whose own windows are open, in line for the connection's, the socket or the next turn."""
        self._table_update = b""
        self._abandoned: dict[int, None] = {}

    def take_output(self) -> bytes:
        self._awake = False
        self._turn_left = _TURN_BYTES
        output = b"".join(self._out)
        self._out.clear()
        return output

    def emit(self, built: bytes) -> None:
        self._out.append(built)
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._endpoint.wake()

    def reply(self, stream: Stream, head: bytes, message: bytes, last: bytes) -> None:
        """A whole unary response: header block, framed message, trailer block."""
        size = len(message)
        if size <= self._send_window and size <= stream.send_window and size <= self._at_once_bytes:
            self._send_window -= size
            self._out += frames.whole_response(stream.id, head, message, last)
            self._wake()
            self._sent_end(stream)
            return
        self.send_head(stream, head)
        self.send_data(stream, message)
        self.send_last(stream, last)

    def _fit(self) -> None:
        self._at_once_bytes = -1 if self._table_update or self._held else self._peer_frame_bytes

    def hold(self) -> None:
        """The socket is full: data waits here, where windows and limits count it."""
        self._held = True
        self._fit()

    def resume(self) -> None:
        """The socket takes output again."""
        self._held = False
        self._fit()
        self.go_on()

    def go_on(self) -> None:
        """Send more of what waits, in another turn of the loop."""
        self._pump_ready()

    def send_head(self, stream: Stream, block: bytes, end: bool = False) -> None:
        if self._table_update:
            block, self._table_update = self._table_update + block, b""
            self._fit()
        self.emit(frames.headers(stream.id, block, end, self._peer_frame_bytes))
        if end:
            self._sent_end(stream)

    def send_data(self, stream: Stream, payload: bytes, end: bool = False) -> None:
        """Send what the windows allow; the rest waits, in order."""
        size = len(payload)
        room = -1 if self._held else min(self._send_window, stream.send_window, self._peer_frame_bytes)
        if stream.pending is None and (size <= room or not size):
            self._send_window -= size
            stream.send_window -= size
            self.emit(frames.frame(frames.DATA, frames.END_STREAM if end else 0, stream.id, payload))
            if end:
                self._sent_end(stream)
            return
        if stream.pending is None:
            stream.pending = bytearray()
        stream.pending += payload
        self.pending_bytes += size
        if end:
            stream.last = b""
        self._pump(stream)

    def send_last(self, stream: Stream, block: bytes) -> None:
        """The trailers, after all data."""
        if stream.pending is None:
            self.send_head(stream, block, end=True)
        else:
            stream.last = block

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Abandon a stream; its owner is told nothing."""
        if self.streams.get(stream.id) is stream:
            self._forget(stream)
            self._abandon(stream.id, code)

    def reject(self, stream: Stream, code: ErrorCode) -> None:
        """Complain of what came on a stream, though that may have been its end; its owner is told nothing."""
        self._forget(stream)
        self._abandon(stream.id, code)

    def _abandon(self, stream_id: int, code: ErrorCode) -> None:
        """What the peer sent before it hears of this is no fault of its. It cannot have opened more streams by then
        than it may have at once, so that many are remembered."""
        if not self._client:
            self._abandoned[stream_id] = None
            if len(self._abandoned) > self.limits.max_streams:
                del self._abandoned[next(iter(self._abandoned))]
        self.emit(frames.rst_stream(stream_id, code))

    def waits_for_more_than(self, most_bytes: int) -> bool:
        """The peer is slow to take replies: apart from the largest, which may be as large as it likes."""
        if self.pending_bytes <= most_bytes:
            return False
        sizes = (len(stream.pending) for stream in self.streams.values() if stream.pending is not None)
        return self.pending_bytes - max(sizes) > most_bytes

    def _pump(self, stream: Stream) -> None:
        if stream.send_window > 0:
            self._ready[stream.id] = stream
            self._pump_ready()

    def _pump_ready(self) -> None:
        """Send what the connection's window and this turn of the loop allow, a frame of each stream in turn. A peer
        that opens windows byte by byte makes no work for streams that stay shut."""
        ready = self._ready
        while ready and self._send_window > 0 and self._turn_left > 0 and not self._held:
            self._send_some(ready.pop(next(iter(ready))))
        self.cut_short = bool(ready) and self._turn_left <= 0 and not self._held

    def _send_some(self, stream: Stream) -> None:
        pending = stream.pending or bytearray()
        size = min(self._send_window, stream.send_window, self._peer_frame_bytes, len(pending))
        if size <= 0:
            return
        final = stream.last == b"" and size == len(pending)
        payload = bytes(memoryview(pending)[:size])
        self.emit(frames.frame(frames.DATA, frames.END_STREAM if final else 0, stream.id, payload))
        del pending[:size]
        stream.send_window -= size
        self._send_window -= size
        self._turn_left -= size
        self.pending_bytes -= size
        self.bytes_pumped += size
        if not pending:
            stream.pending = None
            self._drained(stream)
        elif stream.send_window > 0:
            self._ready[stream.id] = stream

    def _drained(self, stream: Stream) -> None:
        if stream.last:
            self.send_head(stream, stream.last, end=True)
        elif stream.last is not None:
            self._sent_end(stream)
        elif stream.owner is not None:
            stream.owner.writable()

    def _sent_end(self, stream: Stream) -> None:
        stream.sending = False
        self._patience.regain()
        if not stream.receiving:
            self.streams.pop(stream.id, None)
            stream.owner = None  # its call holds it: without cycles nothing waits for the garbage collector
        elif not self._client:  # the answer is complete: what the client still sends is for nobody
            self.reset(stream, ErrorCode.NO_ERROR)

    def _forget(self, stream: Stream) -> StreamOwner | None:
        """The owner that it had."""
        self.streams.pop(stream.id, None)
        stream.sending = stream.receiving = False
        if stream.pending is not None:
            self.pending_bytes -= len(stream.pending)
            stream.pending = None
            self._ready.pop(stream.id, None)
        owner, stream.owner = stream.owner, None
        return owner

    def consumed(self, stream: Stream, count: int) -> None:
        """The owner took this many received bytes; the peer may send as many again, in large steps."""
        stream.unreturned += count
        if stream.receiving and stream.unreturned * 2 >= self.limits.window_bytes:
            stream.receive_window += stream.unreturned
            self.emit(frames.window_update(stream.id, stream.unreturned))
            stream.unreturned = 0
