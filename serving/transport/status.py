"""gRPC status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html) and the error that carries one."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Code(IntEnum):
    """Status codes as they stand on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


Metadata = Sequence[tuple[str, str | bytes]]


class RpcError(Exception):
    """A call ended with another status than OK. Raised by clients; a handler raises it to end its call."""

    def __init__(self, code: Code, details: str, trailing_metadata: Metadata = ()) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.trailing_metadata = trailing_metadata

    def anew(self) -> RpcError:
        """To be raised by who keeps this one: the frames that it goes through hold what keeps it."""
        return RpcError(self.code, self.details, self.trailing_metadata)


def let_go(error: BaseException) -> None:
    """Forget where the error was raised, and what led to it: that holds what holds the error, and all of it would wait
    until the interpreter looks for cycles. For whoever has told what there is to tell."""
    error.__traceback__ = error.__cause__ = error.__context__ = None


def too_large(size: int, limit: int) -> RpcError:
    return RpcError(Code.RESOURCE_EXHAUSTED, f"message of {size} bytes is larger than the limit of {limit}")
