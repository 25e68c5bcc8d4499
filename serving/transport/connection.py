"""One HTTP/2 connection without I/O (RFC 9113): bytes in, calls of a `StreamOwner` and of the `Endpoint`, bytes out.

`receive` never raises: a peer that breaks the rules gets a GOAWAY, and `closed_reason` says why. Output gathers in
`take_output`; `Endpoint.wake` is called once when there is some and nobody is about to take it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.transport import frames
from serving.transport.control import Control
from serving.transport.frames import ConnectionFault, ErrorCode, Frame, FrameReader, Setting, StreamFault
from serving.transport.hpack import Decoder, HeaderListTooLargeError
from serving.transport.streams import ConnectionLimits, Endpoint, Stream, StreamOwner


class Connection(Control):
    """The state machine of either side."""

    def __init__(
        self,
        endpoint: Endpoint,
        parse_head: Callable[[tuple[tuple[bytes, bytes], ...]], Any],
        limits: ConnectionLimits,
        clock: Callable[[], float],
        client: bool,
    ) -> None:
        super().__init__(endpoint, limits, clock, client)
        self.more = False
        self._reader = FrameReader()
        self._decoder: Decoder[Any] = Decoder(parse_head, limits.max_header_list_bytes)
        self._preface_left = b"" if client else frames.PREFACE
        self._receive_window = limits.connection_window_bytes
        self._unreturned = 0
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_of: tuple[int, int] | None = None
        self.blocks_begun = 0
        """Of those that CONTINUATIONs end."""
        self._early: dict[int, Any] = {}
        """Heads of requests whose data may follow in the same read: clients send the heads of many calls first."""
        self._greet()

    def _greet(self) -> None:
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: self.limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: self.limits.window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self.limits.max_header_list_bytes,
        }
        if self._client:
            settings[Setting.ENABLE_PUSH] = 0
        self._out.append((frames.PREFACE if self._client else b"") + frames.settings(settings))
        more = self.limits.connection_window_bytes - frames.DEFAULT_WINDOW
        if more > 0:
            self._out.append(frames.window_update(0, more))

    @classmethod
    def handlers(cls) -> dict[int, Callable[[Connection, int, int, bytes], None]]:
        """By the type of the frame. No connection has its own: each would hold itself."""
        return {
            frames.DATA: cls._data, frames.HEADERS: cls._headers, frames.PRIORITY: cls._priority,
            frames.RST_STREAM: cls._rst_stream, frames.SETTINGS: cls._settings, frames.PUSH_PROMISE: cls._push_promise,
            frames.PING: cls._ping, frames.GOAWAY: cls._goaway, frames.WINDOW_UPDATE: cls._window_update,
            frames.CONTINUATION: cls._continuation,
        }  # fmt: skip

    # --- what this side does ---

    def open(self, block: bytes, owner: StreamOwner) -> Stream:
        """A client's new stream, with its request headers sent."""
        stream = self._new_stream(owner)
        self.send_head(stream, block)
        return stream

    def request(self, block: bytes, payload: bytes, owner: StreamOwner) -> Stream:
        """A client's new stream, with its request headers and all its data sent."""
        stream = self._new_stream(owner)
        size, most = len(payload), self._at_once_bytes
        if size <= self._send_window and size <= stream.send_window and size <= most and len(block) <= most:
            self._send_window -= size
            self._out += frames.whole_request(stream.id, block, payload)
            self._wake()
            self._sent_end(stream)
        else:
            self.send_head(stream, block)
            self.send_data(stream, payload, end=True)
        return stream

    def _new_stream(self, owner: StreamOwner) -> Stream:
        stream = Stream(self._next_stream, self._peer_initial_window, self.limits.window_bytes)
        stream.owner = owner
        self._next_stream += 2
        self.streams[stream.id] = stream
        return stream

    @property
    def inside_block(self) -> bool:
        """A header block began and has not ended."""
        return self._block_of is not None

    @property
    def inside_frame(self) -> bool:
        return self._reader.inside_frame

    @property
    def bytes_taken(self) -> int:
        """Of whole frames."""
        return self._reader.bytes_taken

    # --- what the peer does ---

    def receive(self, received: bytes) -> None:
        """Take bytes from the peer. The caller takes the output afterwards, and calls again, with nothing, while there
        is `more`: so many frames are no single turn's work."""
        self.more = False
        if self.closed_reason is not None:
            return
        self._awake = True
        try:
            if self._preface_left:
                received = self._preface(received)
            cut = self._reader.feed(received)
            self._act(cut)
            self.more = len(cut) >= frames.MOST_FRAMES
        except ConnectionFault as fault:
            self.close(fault.code, fault.reason)

    def _act(self, received: list[Frame]) -> None:
        """On frames in their order; on all those of a call at once where they follow each other."""
        whole, early = self._whole_response if self._client else self._whole_request, self._early
        position, count = 0, len(received)
        while position < count:
            kind, flags, stream_id, payload = received[position]
            position += 1
            if self._expected is not None and kind != self._expected:
                raise self._unexpected()
            try:
                if kind == frames.HEADERS and flags == frames.END_HEADERS:
                    taken = whole(stream_id, payload, received, position)
                    if taken is not None:
                        position += taken
                        continue
                elif early and kind == frames.DATA and self._rest_of_early(flags, stream_id, payload):
                    continue
                if early:
                    self._begin_early()
                handler = _HANDLERS.get(kind)
                if handler is None:
                    self._patience.spend()
                else:
                    handler(self, flags, stream_id, payload)
            except StreamFault as fault:
                self._fault(fault)
        if early:
            self._begin_early()

    def _rest_of_early(self, flags: int, stream_id: int, payload: bytes) -> bool:
        """Whether this is all the data of a request whose head came before."""
        early = self._early
        if flags != frames.END_STREAM or stream_id not in early or len(payload) > self.limits.window_bytes:
            return False
        self._take_window(len(payload))
        self._begin(stream_id, early.pop(stream_id), True, payload)
        return True

    def _begin_early(self) -> None:
        """Requests that did not come whole, before anything else happens."""
        early = self._early
        while early:
            stream_id = next(iter(early))
            try:
                self._begin(stream_id, early.pop(stream_id), False, b"")
            except StreamFault as fault:
                self._fault(fault)

    def _unexpected(self) -> ConnectionFault:
        reason = "SETTINGS did not come first" if self._block_of is None else "a header block was interrupted"
        return ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)

    def _whole_request(self, stream_id: int, block: bytes, received: list[Frame], after: int) -> int | None:
        """1 if the frame after a request's head is all of its data, and both were taken; 0 if the head was, and the
        data is looked for in the frames to come; None for what is no plain request."""
        if not 0 < stream_id - self._last_peer_stream <= 2 or not stream_id & 1 or self.draining:
            return None
        kind, flags, data_of, payload = received[after] if after < len(received) else _NO_FRAME
        self._last_peer_stream = stream_id
        fits = len(payload) <= self.limits.window_bytes
        if kind != frames.DATA or flags != frames.END_STREAM or data_of != stream_id or not fits:
            self._early[stream_id] = self._head(block)
            return 0
        self._take_window(len(payload))
        try:
            self._begin(stream_id, self._head(block), True, payload)
        except StreamFault as fault:
            self._fault(fault)
        return 1

    def _whole_response(self, stream_id: int, block: bytes, received: list[Frame], after: int) -> int | None:
        """2 if the frames after a response's head are all its data and its trailers, and all were taken; else None."""
        if after + 2 > len(received):
            return None
        (kind, flags, data_of, payload), (last_kind, last_flags, last_of, last) = received[after : after + 2]
        if kind != frames.DATA or flags or last_kind != frames.HEADERS or last_flags != _LAST_HEADERS:
            return None
        stream = self.streams.get(stream_id)
        if stream is None or data_of != stream_id or last_of != stream_id:
            return None
        if not stream.receiving or not 0 < len(payload) <= stream.receive_window:
            return None
        self._take_window(len(payload))
        head, end = self._head(block), self._head(last)
        if head is None or end is None:
            self._endpoint.head_too_large(stream)
        else:
            self._received_end(stream)
            self._endpoint.answered(stream, head, payload, end)
        return 2

    def _head(self, block: bytes) -> Any:
        """None for one that is too large."""
        try:
            return self._decoder.decode(block)
        except HeaderListTooLargeError:
            self._patience.spend(_BOMB_COST)
            return None

    def _preface(self, received: bytes) -> bytes:
        expected = self._preface_left
        if not expected.startswith(received[: len(expected)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not an HTTP/2 preface")
        self._preface_left = expected[len(received) :]
        return received[len(expected) :]

    def _fault(self, fault: StreamFault) -> None:
        self._patience.spend()
        stream = self.streams.get(fault.stream_id)
        if stream is not None:
            owner = self._forget(stream)
            if owner is not None:
                owner.closed(fault.code)
        self._abandon(fault.stream_id, fault.code)

    def _data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._take_window(size)
        stream = self.streams.get(stream_id)
        if stream is None or not stream.receiving:
            return self._stray(stream_id)
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        if flags & frames.PADDED:
            payload = frames.unpadded(frames.DATA, flags, payload)
            stream.unreturned += size - len(payload)
        if stream.owed is not None:
            stream.owed -= len(payload)
            if stream.owed < 0:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, _WRONG_LENGTH)
        if flags & frames.END_STREAM:
            self._received_end(stream)
        elif not payload:
            self._patience.spend()
        if stream.owner is not None:
            stream.owner.received_data(payload, bool(flags & frames.END_STREAM))
        return None

    def _take_window(self, size: int) -> None:
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self._unreturned += size
        if self._unreturned * 2 >= self.limits.connection_window_bytes:
            self._receive_window += self._unreturned
            self.emit(frames.window_update(0, self._unreturned))
            self._unreturned = 0

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & (frames.PADDED | frames.PRIORITISED):
            payload = frames.unpadded(frames.HEADERS, flags, payload)
        if flags & frames.END_HEADERS:
            self._received_block(stream_id, flags, payload)
        else:
            self._block_of, self._block, self._block_bytes = (stream_id, flags), [payload], len(payload)
            self._expected = frames.CONTINUATION
            self.blocks_begun += 1

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block_of is None or self._block_of[0] != stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without its HEADERS")
        self._block.append(payload)
        self._block_bytes += len(payload)
        too_many = len(self._block) > self.limits.max_continuations
        if too_many or self._block_bytes > self.limits.max_header_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            opening = self._block_of[1]
            self._block_of = self._expected = None
            self._received_block(stream_id, opening, b"".join(self._block))

    def _received_block(self, stream_id: int, flags: int, block: bytes) -> None:
        end = bool(flags & frames.END_STREAM)
        stream = self.streams.get(stream_id)
        head = self._head(block)
        if stream is None and not self._client and stream_id > self._last_peer_stream:
            return self._accept(stream_id, head, end, b"")
        if stream is None or not stream.receiving:
            return self._stray_block(stream_id)
        if head is None:
            self._endpoint.head_too_large(stream)
            return None
        if end:
            self._received_end(stream)
        elif not self._client:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream")
        if stream.owner is not None:
            stream.owner.received_head(head, end)
        return None

    def _accept(self, stream_id: int, head: Any, end: bool, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a client opened stream {stream_id}")
        if stream_id - self._last_peer_stream > 2:
            self._skipped.append(range(self._last_peer_stream + 1, stream_id))
        if self.draining:
            return self._refuse(stream_id)
        self._last_peer_stream = stream_id
        return self._begin(stream_id, head, end, payload)

    def _begin(self, stream_id: int, head: Any, end: bool, payload: bytes) -> None:
        """A stream that the peer may open."""
        if len(self.streams) >= self.limits.max_streams:
            return self._refuse(stream_id)
        stream = Stream(stream_id, self._peer_initial_window, self.limits.window_bytes)
        self.streams[stream_id] = stream
        if end:
            stream.receiving = False
        if head is None:
            self._endpoint.head_too_large(stream)
        else:
            self._endpoint.opened(stream, head, end, payload)
        return None

    def _refuse(self, stream_id: int) -> None:
        self._last_peer_stream = max(self._last_peer_stream, stream_id)
        self._patience.spend()
        self._abandon(stream_id, ErrorCode.REFUSED_STREAM)

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        self._require_known(stream_id)
        self._patience.spend()
        stream = self.streams.get(stream_id)
        if stream is not None:
            owner = self._forget(stream)
            if owner is not None:
                number = frames.word(payload)
                owner.closed(ErrorCode(number) if number in _ERROR_CODES else ErrorCode.INTERNAL_ERROR)

    def _received_end(self, stream: Stream) -> None:
        if stream.owed:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, _WRONG_LENGTH)
        stream.receiving = False
        if not stream.sending:
            self.streams.pop(stream.id, None)
        elif self._client:  # the response is whole: what is left of the request is for nobody
            stream.owner = self._forget(stream)
            self._abandon(stream.id, ErrorCode.CANCEL)
            self._patience.regain()


_HANDLERS = Connection.handlers()
_BOMB_COST = 50
"""Decoding a few bytes into very many fields takes as long as this many frames."""
_WRONG_LENGTH = "a content-length that is not that of the content"
_LAST_HEADERS = frames.END_HEADERS | frames.END_STREAM
_NO_FRAME: Frame = (-1, 0, 0, b"")
_ERROR_CODES = frozenset(ErrorCode)
