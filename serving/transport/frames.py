"""HTTP/2 frames (RFC 9113, sections 4 and 6): splitting a byte stream into frames and building them."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
MAX_WINDOW = (1 << 31) - 1
MAX_STREAM_ID = (1 << 31) - 1
MIN_FRAME_BYTES = 16_384
MAX_FRAME_BYTES = (1 << 24) - 1

# The types and flags are plain numbers: they are compared once or more for every frame.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20


class ErrorCode(IntEnum):
    """RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """RFC 9113, section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The peer broke the rules of the connection, which ends with a GOAWAY of this code."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):
    """The peer broke the rules of one stream, which ends with an RST_STREAM of this code."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream_id = stream_id
        self.code = code
        self.reason = reason


Frame = tuple[int, int, int, bytes]
"""Type, flags, stream id, payload."""

_HEADER = Struct(">IBI")
_SETTING = Struct(">HI")
_WORD = Struct(">I")


MOST_FRAMES = 512
"""Cut at once, about: what a peer sent beyond our patience is not even looked at."""
_LOOKED_AT = 8
"""Frames of a read whose likeness to those before is looked for."""


class FrameReader:
    """Splits received bytes into frames; keeps what is left of an unfinished one, at most one frame long."""

    __slots__ = ("_rest", "bytes_taken", "max_frame_bytes", "most_frames")

    def __init__(self, max_frame_bytes: int = MIN_FRAME_BYTES, most_frames: int = MOST_FRAMES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.most_frames = most_frames
        self.bytes_taken = 0
        self._rest = b""

    @property
    def inside_frame(self) -> bool:
        """A frame began and has not ended."""
        return bool(self._rest)

    def feed(self, received: bytes) -> list[Frame]:
        """The frames that are complete now; if there are `most_frames` or more, others may be in `feed(b"")`. Raises
        ConnectionFault for one longer than allowed."""
        buffer = self._rest + received if self._rest else received
        frames: list[Frame] = []
        position, size, before = 0, len(buffer), -1
        for turn in range(self.most_frames):
            if size - position < 9:
                break
            length_and_type, flags, stream_id = _HEADER.unpack_from(buffer, position)
            length = length_and_type >> 8
            if length > self.max_frame_bytes:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = position + 9 + length
            if end > size:
                break
            frames.append((length_and_type & 0xFF, flags, stream_id & MAX_STREAM_ID, buffer[position + 9 : end]))
            position = end
            if turn < _LOOKED_AT:
                if length_and_type == before:
                    position += _cut_alike(buffer, position, length_and_type, frames, self.most_frames)
                    if len(frames) >= self.most_frames:
                        break
                before = length_and_type
        self._rest = buffer[position:]
        self.bytes_taken += position
        return frames


@lru_cache(maxsize=64)
def _frames_of(length: int) -> Struct:
    return Struct(f">3xBBI{length}s")


def _cut_alike(buffer: bytes, start: int, length_and_type: int, frames: list[Frame], most: int) -> int:
    """Cut all frames at once that have this length and type (and a stream below 2^24), as the heads of many calls have,
    which some clients write before their data. Returns how many bytes they take."""
    length = length_and_type >> 8
    step = 9 + length
    count = max(0, min(most - len(frames), (len(buffer) - start) // step))
    for offset, byte in zip((0, 1, 2, 3, 5), length_and_type.to_bytes(4, "big") + b"\0", strict=True):
        column = buffer[start + offset : start + count * step : step]
        count = len(column) - len(column.lstrip(bytes((byte,))))
    if count:
        frames += _frames_of(length).iter_unpack(memoryview(buffer)[start : start + count * step])
    return count * step


def header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    return _HEADER.pack(length << 8 | kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def headers(stream_id: int, block: bytes, end_stream: bool, max_frame_bytes: int = MIN_FRAME_BYTES) -> bytes:
    """HEADERS, with as many CONTINUATIONs as the block needs."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[start : start + max_frame_bytes] for start in range(0, len(block), max_frame_bytes)]
    built = [frame(HEADERS, flags, stream_id, parts[0])]
    built += [frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
    return b"".join((*built, frame(CONTINUATION, END_HEADERS, stream_id, parts[-1])))


@lru_cache(maxsize=64)
def _headers_and_data(block_bytes: int) -> Struct:
    """HEADERS with a block of that length, and the header of the DATA after it."""
    return Struct(f">IBI{block_bytes}sIBI")


def whole_response(stream_id: int, head: bytes, payload: bytes, last: bytes) -> tuple[bytes, ...]:
    """HEADERS, DATA and the HEADERS that end the stream; none larger than a frame."""
    packed = _headers_and_data(len(head)).pack(
        len(head) << 8 | HEADERS, END_HEADERS, stream_id, head, len(payload) << 8 | DATA, 0, stream_id
    )
    return packed, payload, _HEADER.pack(len(last) << 8 | HEADERS, END_HEADERS | END_STREAM, stream_id), last


def whole_request(stream_id: int, block: bytes, payload: bytes) -> tuple[bytes, ...]:
    """HEADERS and the DATA that ends this side's half of the stream; none larger than a frame."""
    size = len(block)
    return _headers_and_data(size).pack(
        size << 8 | HEADERS, END_HEADERS, stream_id, block, len(payload) << 8 | DATA, END_STREAM, stream_id
    ), payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _WORD.pack(last_stream_id) + _WORD.pack(code) + reason.encode())


def word(payload: bytes, offset: int = 0) -> int:
    """A 32-bit number of a payload whose length was checked."""
    return int(_WORD.unpack_from(payload, offset)[0])


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % 6:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a length that six does not divide")
    return list(_SETTING.iter_unpack(payload))


def unpadded(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority fields. Raises ConnectionFault."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its pad length")
        start, end = 1, end - payload[0]
    if kind == HEADERS and flags & PRIORITISED:
        start += 5
    if start > end:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[start:end]
