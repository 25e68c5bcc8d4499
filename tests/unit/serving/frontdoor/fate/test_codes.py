"""Errors as FATE's codes."""

from __future__ import annotations

import pytest

from apps.app import AppError, PartyStatus
from loaders.signature import FeatureError
from serving import errors
from serving.frontdoor.fate.codes import failure, row_failure
from serving.transport import Code


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.InvalidRequestError("x"), 100, Code.INVALID_ARGUMENT),
        (FeatureError("x"), 102, Code.INVALID_ARGUMENT),
        (errors.UnknownNameError("x"), 104, Code.NOT_FOUND),
        (errors.DeadlineError("x"), 105, Code.DEADLINE_EXCEEDED),
        (errors.PeerUnavailableError("x"), 105, Code.UNAVAILABLE),
        (errors.UnknownUserError("x"), 2113, Code.FAILED_PRECONDITION),
        (errors.ConflictError("x"), 110, Code.FAILED_PRECONDITION),
        (errors.NotReadyError("x"), 111, Code.UNAVAILABLE),
        (errors.LimitError("x"), 124, Code.RESOURCE_EXHAUSTED),
        (errors.UnauthenticatedError("x"), 127, Code.UNAUTHENTICATED),
        (errors.NotAllowedError("x"), 127, Code.PERMISSION_DENIED),
    ],
)
def test_every_error_has_its_code(error: Exception, code: int, status: Code) -> None:
    found, counted, text = failure(error)
    assert (found, counted) == (code, status)
    assert text.endswith("x")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("secret"), errors.InternalError("secret"), AppError("app 'a' failed")]
)
def test_our_own_faults_say_a_request_id_and_nothing_else(error: Exception) -> None:
    code, status, text = failure(error)
    assert (code, status) == (110, Code.INTERNAL)
    assert "request id" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (PartyStatus.NOT_FOUND, 2113),
        (PartyStatus.MISMATCH, 2104),
        (PartyStatus.INTERNAL, 2110),
        (PartyStatus.TIMEOUT, 105),
    ],
)
def test_a_row_says_what_its_host_did(status: PartyStatus, code: int) -> None:
    assert row_failure("10000", status) == (code, f"host 10000 remote error : {status.name.lower()}")
