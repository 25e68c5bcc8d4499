"""Why a server closes connections, by names of which there are few. What a peer is told may quote what it sent."""

from __future__ import annotations

from enum import Enum

from serving.transport.frames import ErrorCode


class Closing(Enum):
    """The names under which closed connections are counted."""

    FLOOD = "too many frames to no purpose"
    ENDLESS_BLOCK = "a header block without end"
    NO_PREFACE = "not an HTTP/2 preface"
    PROTOCOL = "protocol error"
    FLOW_CONTROL = "flow control error"
    FRAME_SIZE = "frame size error"
    COMPRESSION = "header compression error"
    HANDSHAKE = "handshake timeout"
    SLOW_HEADERS = "slow headers"
    SLOW_FRAME = "slow frame"
    STALLED = "stalled"
    SILENT = "silent"
    TOO_MANY = "too many connections"
    NO_ALPN = "TLS without ALPN h2"
    NO_TLS = "TLS handshake failed or slow"
    OTHER = "other"


_BY_REASON = {closing.value: closing for closing in Closing}
_BY_CODE = {
    ErrorCode.PROTOCOL_ERROR: Closing.PROTOCOL,
    ErrorCode.STREAM_CLOSED: Closing.PROTOCOL,
    ErrorCode.FLOW_CONTROL_ERROR: Closing.FLOW_CONTROL,
    ErrorCode.FRAME_SIZE_ERROR: Closing.FRAME_SIZE,
    ErrorCode.COMPRESSION_ERROR: Closing.COMPRESSION,
}


def closing_of(reason: str, code: ErrorCode) -> Closing:
    """The name for a reason of the protocol's, which ended its connection with this code."""
    return _BY_REASON.get(reason) or _BY_CODE.get(code, Closing.OTHER)
