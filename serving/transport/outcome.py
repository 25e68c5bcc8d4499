"""What a client makes of responses that are not gRPC's, of resets and of lost connections."""

from __future__ import annotations

from serving.transport.call import Head
from serving.transport.connection import Connection
from serving.transport.frames import ErrorCode
from serving.transport.status import Code, RpcError

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


def is_informational(head: Head, end: bool) -> bool:
    """The response proper is still to come (RFC 9110, section 15.2)."""
    return not end and head.shape.http_status[:1] == b"1"


def not_grpc(head: Head) -> RpcError | None:
    """Why this cannot be the head of a gRPC response; None if it can."""
    status = head.shape.http_status
    if head.shape.begins_response:
        return None
    code = _BY_HTTP_STATUS.get(status, Code.UNKNOWN)
    return RpcError(code, f"not a gRPC response: HTTP status {status.decode('latin-1')}")


def broken(connection: Connection, code: ErrorCode) -> RpcError:
    """Why a stream ended early."""
    if connection.closed_reason is not None:
        return RpcError(Code.UNAVAILABLE, f"connection lost: {connection.closed_reason}")
    return RpcError(_BY_RESET.get(code, Code.INTERNAL), f"the peer reset the call with {code.name}")
