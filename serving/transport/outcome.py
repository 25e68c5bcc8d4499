"""What a client makes of responses that are not gRPC's, of resets and of lost connections.

Statuses of HTTP stand in for those of gRPC only where a response has none (grpc/doc/http-grpc-status-mapping.md).
"""

from __future__ import annotations

from serving.transport.call import Head, MessageReader
from serving.transport.connection import Connection
from serving.transport.frames import ErrorCode
from serving.transport.status import Code, RpcError
from serving.transport.streams import Stream

_BY_HTTP_STATUS = {
    b"400": Code.INTERNAL,
    b"401": Code.UNAUTHENTICATED,
    b"403": Code.PERMISSION_DENIED,
    b"404": Code.UNIMPLEMENTED,
    b"429": Code.UNAVAILABLE,
    b"502": Code.UNAVAILABLE,
    b"503": Code.UNAVAILABLE,
    b"504": Code.UNAVAILABLE,
}
_BY_RESET = {
    ErrorCode.NO_ERROR: Code.INTERNAL,
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


class MalformedError(RpcError):
    """The response breaks a rule of HTTP: a stream error PROTOCOL_ERROR (RFC 9113, section 8.1.1)."""

    def __init__(self, details: str) -> None:
        super().__init__(Code.INTERNAL, details)


def headless() -> RpcError:
    return MalformedError("data before the head of the response")


def check_length(head: Head, reader: MessageReader) -> None:
    """Raises RpcError as soon as more content came than its content-length says."""
    if head.content_length is not None and reader.taken > head.content_length:
        raise _wrong_length()


def _wrong_length() -> RpcError:
    return MalformedError("a content-length that is not that of the content")


def give_up(connection: Connection, stream: Stream, error: RpcError) -> None:
    """Tell the peer that the call has ended on this side."""
    if isinstance(error, MalformedError):
        connection.reject(stream, ErrorCode.PROTOCOL_ERROR)
    else:
        connection.reset(stream, ErrorCode.CANCEL)


def is_informational(head: Head, end: bool) -> bool:
    """The response proper is still to come (RFC 9110, section 15.2)."""
    return not end and head.shape.http_status[:1] == b"1"


def wrong_head(head: Head, end: bool) -> RpcError | None:
    """Why this cannot be the head of a gRPC response, or all of it if it is the end; None if it can."""
    shape = head.shape
    if head.malformed or shape.malformed_response:
        return MalformedError("a malformed response")
    if shape.begins_response or (end and shape.says_status):
        return None
    status = shape.http_status.decode("latin-1")
    if status != "200":
        code = _BY_HTTP_STATUS.get(shape.http_status, Code.UNKNOWN)
        return RpcError(code, f"not a gRPC response: HTTP status {status}")
    if not shape.is_grpc:
        return RpcError(Code.UNKNOWN, "not a gRPC response: HTTP status 200 with another content-type")
    return RpcError(Code.INTERNAL, "a response with an unknown grpc-encoding")


def wrong_trailers(head: Head, end: bool) -> RpcError | None:
    """Why this cannot follow the head of a response; None if it can."""
    if not end:
        return MalformedError("trailers that do not end the response")
    if head.malformed or head.shape.malformed_trailers:
        return MalformedError("malformed trailers")
    return None


def ending(head: Head, last: Head, reader: MessageReader | None) -> RpcError | None:
    """The status of a response that came to its end; None for OK. `head` is `last` where nothing came between."""
    length = head.content_length
    if length is not None and length != (0 if reader is None else reader.taken):
        return _wrong_length()
    error = last.status()
    if error is None and reader is not None and reader.unfinished:
        return RpcError(Code.INTERNAL, "the response ended inside a message")
    return error


def broken(connection: Connection, code: ErrorCode) -> RpcError:
    """Why a stream ended early."""
    if connection.closed_reason is not None:
        return RpcError(Code.UNAVAILABLE, f"connection lost: {connection.closed_reason}")
    return RpcError(_BY_RESET.get(code, Code.INTERNAL), f"the peer reset the call with {code.name}")
