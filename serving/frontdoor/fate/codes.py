"""FATE-Serving's return codes. Errors travel in the reply's body there, never as a gRPC status.

Where FATE-Serving says 110 with an empty text for all that it did not expect, the code that fits is used here: an
unknown service is 104, a feature that cannot be used 102, a host that does not know the user 2113.

What a host says reads as there: "2" before its code, so that 628 is 2628; a host that was not reached, or not in
time, is 105.
"""

from __future__ import annotations

from enum import IntEnum

from apps.app import PartyStatus
from loaders.signature import FeatureError
from serving.errors import (
    DeadlineError,
    HostFailure,
    InvalidRequestError,
    LimitError,
    NotAllowedError,
    NotReadyError,
    PeerError,
    UnauthenticatedError,
    UnknownNameError,
    WrongRoleError,
    public,
)
from serving.peers.fate import retcode_in, said, status_of
from serving.peers.peer import NO_MODEL, OVER_LIMIT
from serving.transport import Code

_OF_A_CALL = frozenset({PartyStatus.TIMEOUT, PartyStatus.UNREACHABLE, PartyStatus.MISMATCH})
"""What a host's part of a whole call comes to, and never that of a row by itself."""


class FateCode(IntEnum):
    OK = 0
    BAD_PARAMETER = 100
    FEATURE = 102
    NO_MODEL = 104
    NETWORK = 105
    LOAD = 107
    BIND = 109
    SYSTEM = 110
    SHUTTING_DOWN = 111
    HOST_FEATURE_MISSING = 113
    FEATURE_ADAPTOR = 116
    ROLE = 121
    OVERLOAD = 124
    UNSUPPORTED = 125
    NOT_REGISTERED = 126
    INVALID_TOKEN = 127
    MODEL_SYNCHRONISATION = 130
    PROXY_ROUTER = 628
    """128, with what a proxy adds to its own codes between parties; so is the next."""
    PROXY_AUTH = 629


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (FeatureError, FateCode.FEATURE),
    (InvalidRequestError, FateCode.BAD_PARAMETER),
    (WrongRoleError, FateCode.ROLE),
    (UnknownNameError, FateCode.NO_MODEL),
    (LimitError, FateCode.OVERLOAD),
    (DeadlineError, FateCode.NETWORK),
    (PeerError, FateCode.NETWORK),
    (NotReadyError, FateCode.SHUTTING_DOWN),
    (UnauthenticatedError, FateCode.INVALID_TOKEN),
    (NotAllowedError, FateCode.INVALID_TOKEN),
)

_HOST_CODES = {
    PartyStatus.NOT_FOUND: FateCode.HOST_FEATURE_MISSING,
    PartyStatus.MISMATCH: FateCode.NO_MODEL,
    PartyStatus.REJECTED: FateCode.PROXY_AUTH,
    PartyStatus.INTERNAL: FateCode.SYSTEM,
}
"""What a host with another protocol would have said. None where it said nothing: it was not reached in time."""
_REFUSALS = ((NO_MODEL, FateCode.NO_MODEL), (OVER_LIMIT, FateCode.OVERLOAD))
"""What a host refuses to whoever asks, and for all that is asked."""
_WITHOUT_REASON = {
    PartyStatus.NOT_FOUND: "party {!r} does not know the user",
    PartyStatus.MISMATCH: "party {!r} has not the half that is asked for",
    PartyStatus.REJECTED: "party {!r} refuses to tell",
    PartyStatus.INTERNAL: "party {!r} cannot use its features of the user",
}


def failure(error: Exception) -> tuple[int, Code, str]:
    """The code in FATE's reply, that for our figures, and the public text."""
    status, text = public(error)
    if isinstance(error, PeerError) and error.failure is not None:
        code, text = host_failure(error.failure)
        return code, status, text
    fate = next((code for kind, code in _CODES if isinstance(error, kind)), int(FateCode.SYSTEM))
    return int(fate), status, text


def of_first_line(code: int, error: Exception) -> int:
    """As FATE-Serving 1 says whose fault it is: 1000 more for the guest's, 2000 for a host's, whose own codes have that
    already."""
    if not 0 < code < 1_000:
        return code
    return code + (2_000 if isinstance(error, PeerError) else 1_000)


def host_failure(lacking: HostFailure) -> tuple[int, str]:
    """Code and text of an answer, or of a row of one, that lacks a host's part."""
    status, reason = lacking.status, lacking.reason
    retcode = retcode_in(reason)
    if retcode is not None and status_of(retcode) is status:
        return _of_host(retcode), reason
    if status not in _HOST_CODES:
        detail = f": {reason}" if reason else ""
        return int(FateCode.NETWORK), f"host {lacking.party} remote error : {status.name.lower()}{detail}"
    code = int(_refusal(reason) or _HOST_CODES[status])
    return _of_host(code), said(code, reason or _WITHOUT_REASON[status].format(lacking.party))


def is_of_a_call(lacking: HostFailure) -> bool:
    """Whether the call as a whole failed at a host, and not its rows."""
    return lacking.status in _OF_A_CALL or _refusal(lacking.reason) is not None


def _refusal(reason: str) -> FateCode | None:
    return next((code for text, code in _REFUSALS if reason.startswith(text)), None)


def _of_host(retcode: int) -> int:
    return int(f"2{retcode}")
