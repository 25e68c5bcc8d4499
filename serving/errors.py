"""Everything that can go wrong in serving, by whose fault it is.

TesseraError
├── CallerError                 the request or the admin call is wrong
│   ├── InvalidRequestError     INVALID_ARGUMENT
│   ├── UnknownNameError        NOT_FOUND
│   │   └── WrongRoleError      what this party has under the name is a host's half, which answers no callers
│   ├── UnauthenticatedError    UNAUTHENTICATED: nobody we know
│   ├── NotAllowedError         PERMISSION_DENIED
│   ├── ConflictError           FAILED_PRECONDITION (stale revision, digest mismatch, bound or held)
│   └── LimitError              RESOURCE_EXHAUSTED
├── DeadlineError               DEADLINE_EXCEEDED: the time was spent
├── PeerError                   another party's fault
│   ├── PeerUnavailableError    UNAVAILABLE (down, late, refuses)
│   └── UnknownUserError        FAILED_PRECONDITION (the host does not know the user)
├── NotReadyError               UNAVAILABLE: this node is starting or draining, or lacks what a service needs
│   └── NotKeptError            a change could not be written down; also an OSError
└── InternalError               INTERNAL: our fault; the caller sees a request id and nothing else

The text of every error but InternalError is public: it goes to the caller as it is, so it never carries a secret, a raw
user id or a path of the server.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from apps.app import AppError, PartyStatus
from loaders.artifact import ArtifactError
from loaders.loader import LoadError
from loaders.signature import FeatureError
from serving.transport.status import Code, let_go

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HostFailure:
    """What a host's part of an answer came to when it is lacking. `reason`: public text, "" for none."""

    party: str
    status: PartyStatus
    reason: str = ""


class TesseraError(Exception):
    """Root of the tree. `str(error)` is the public text."""

    code = Code.INTERNAL


class CallerError(TesseraError):
    code = Code.INVALID_ARGUMENT


class InvalidRequestError(CallerError):
    code = Code.INVALID_ARGUMENT


class UnknownNameError(CallerError):
    code = Code.NOT_FOUND


class WrongRoleError(UnknownNameError):
    """What this party has under the name is a host's half, which answers no callers."""


class UnauthenticatedError(CallerError):
    code = Code.UNAUTHENTICATED


class NotAllowedError(CallerError):
    code = Code.PERMISSION_DENIED


class ConflictError(CallerError):
    code = Code.FAILED_PRECONDITION


class LimitError(CallerError):
    """`retry_after_s`: when the same call may pass; None when it never does."""

    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class DeadlineError(TesseraError):
    code = Code.DEADLINE_EXCEEDED


class PeerError(TesseraError):
    """`failure`: where an answer lacks a host's part."""

    code = Code.UNAVAILABLE

    def __init__(self, text: str, failure: HostFailure | None = None) -> None:
        super().__init__(text)
        self.failure = failure


class PeerUnavailableError(PeerError):
    code = Code.UNAVAILABLE


class UnknownUserError(PeerError):
    code = Code.FAILED_PRECONDITION


class NotReadyError(TesseraError):
    code = Code.UNAVAILABLE


class NotKeptError(NotReadyError, OSError):
    """`in_doubt`: it may have been kept all the same, nobody has said."""

    def __init__(self, text: str, in_doubt: bool = False) -> None:
        super().__init__(text)
        self.in_doubt = in_doubt


class InternalError(TesseraError):
    code = Code.INTERNAL


_FOREIGN: dict[type[Exception], Code] = {
    FeatureError: Code.INVALID_ARGUMENT,
    ArtifactError: Code.FAILED_PRECONDITION,
    LoadError: Code.FAILED_PRECONDITION,
}


def code_of(error: BaseException) -> Code:
    """The status that the caller gets."""
    if isinstance(error, TesseraError):
        return error.code
    return next((code for kind, code in _FOREIGN.items() if isinstance(error, kind)), Code.INTERNAL)


def public(error: Exception, request_id: str = "") -> tuple[Code, str]:
    """Status and text for the caller. What is not meant for callers is logged under a request id, the caller's own if
    there is one, and only the id goes out. Other errors are let go; this one each call logs that it fails."""
    if isinstance(error, TesseraError) and error.code is not Code.INTERNAL:
        let_go(error)
        return error.code, str(error)
    for kind, code in _FOREIGN.items():
        if isinstance(error, kind):
            let_go(error)
            return code, str(error)
    request_id = request_id or secrets.token_hex(8)
    logger.error("request %s failed", request_id, exc_info=error)
    if isinstance(error, AppError):
        return Code.INTERNAL, f"{error}; request id {request_id}"
    return Code.INTERNAL, f"internal error, request id {request_id}"
