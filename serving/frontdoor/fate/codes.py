"""FATE-Serving's return codes. Errors travel in the reply's body there, never as a gRPC status.

Where FATE-Serving says 110 with an empty text for all that it did not expect, the code that fits is used here: an
unknown service is 104, a feature that cannot be used 102, a host that does not know the user 2113.
"""

from __future__ import annotations

from enum import IntEnum

from apps.app import PartyStatus
from loaders.signature import FeatureError
from serving.errors import (
    DeadlineError,
    InvalidRequestError,
    LimitError,
    NotAllowedError,
    NotReadyError,
    PeerUnavailableError,
    UnauthenticatedError,
    UnknownNameError,
    UnknownUserError,
    public,
)
from serving.transport import Code

HOST_FAILED = 2_000
"""Added to a code that a host gave."""


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
    OVERLOAD = 124
    UNSUPPORTED = 125
    NOT_REGISTERED = 126
    INVALID_TOKEN = 127
    MODEL_SYNCHRONISATION = 130
    PROXY_AUTH = 629
    """129, with what a proxy adds to its own codes between parties."""


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (FeatureError, FateCode.FEATURE),
    (InvalidRequestError, FateCode.BAD_PARAMETER),
    (UnknownNameError, FateCode.NO_MODEL),
    (LimitError, FateCode.OVERLOAD),
    (DeadlineError, FateCode.NETWORK),
    (PeerUnavailableError, FateCode.NETWORK),
    (UnknownUserError, HOST_FAILED + FateCode.HOST_FEATURE_MISSING),
    (NotReadyError, FateCode.SHUTTING_DOWN),
    (UnauthenticatedError, FateCode.INVALID_TOKEN),
    (NotAllowedError, FateCode.INVALID_TOKEN),
)

_OF_A_ROW = {
    PartyStatus.NOT_FOUND: HOST_FAILED + FateCode.HOST_FEATURE_MISSING,
    PartyStatus.MISMATCH: HOST_FAILED + FateCode.NO_MODEL,
    PartyStatus.INTERNAL: HOST_FAILED + FateCode.SYSTEM,
}
"""105 for the rest: the host was not reached in time, or would not."""


def failure(error: Exception) -> tuple[int, Code, str]:
    """The code in FATE's reply, that for our figures, and the public text."""
    status, text = public(error)
    if isinstance(error, UnknownUserError):
        text = f"host return code {int(FateCode.HOST_FEATURE_MISSING)} host msg :{text}"
    fate = next((code for kind, code in _CODES if isinstance(error, kind)), int(FateCode.SYSTEM))
    return int(fate), status, text


def row_failure(party: str, status: PartyStatus) -> tuple[int, str]:
    """Code and text of a row of a batch that one host did not answer."""
    return int(_OF_A_ROW.get(status, FateCode.NETWORK)), f"host {party} remote error : {status.name.lower()}"
