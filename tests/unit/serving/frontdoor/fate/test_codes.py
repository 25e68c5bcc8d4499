"""Errors as FATE's codes."""

from __future__ import annotations

import pytest

from apps.app import AppError, PartyStatus
from loaders.signature import FeatureError
from serving import errors
from serving.frontdoor.fate.codes import failure, host_failure, is_of_a_call, of_first_line
from serving.peers.peer import NO_MODEL, OVER_LIMIT
from serving.transport import Code


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.InvalidRequestError("x"), 100, Code.INVALID_ARGUMENT),
        (FeatureError("x"), 102, Code.INVALID_ARGUMENT),
        (errors.UnknownNameError("x"), 104, Code.NOT_FOUND),
        (errors.DeadlineError("x"), 105, Code.DEADLINE_EXCEEDED),
        (errors.PeerUnavailableError("x"), 105, Code.UNAVAILABLE),
        (errors.ConflictError("x"), 110, Code.FAILED_PRECONDITION),
        (errors.WrongRoleError("x"), 121, Code.NOT_FOUND),
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


def lacking(status: PartyStatus, reason: str = "") -> errors.PeerUnavailableError:
    return errors.PeerUnavailableError("x", errors.HostFailure("10000", status, reason))


@pytest.mark.parametrize(
    ("status", "reason", "code", "text"),
    [
        (PartyStatus.NOT_FOUND, "", 2113, "host return code 113 host msg :party '10000' does not know the user"),
        (PartyStatus.MISMATCH, "another half", 2104, "host return code 104 host msg :another half"),
        (PartyStatus.REJECTED, "", 2629, "host return code 629 host msg :party '10000' refuses to tell"),
        (PartyStatus.REJECTED, "rejected, no such model: m/2", 2104, "host return code 104 host msg :rejected, no"),
        (PartyStatus.REJECTED, "rejected, over a limit: 9", 2124, "host return code 124 host msg :rejected, over"),
        (PartyStatus.INTERNAL, "", 2110, "host return code 110 host msg :party '10000' cannot use its features"),
        (PartyStatus.TIMEOUT, "", 105, "host 10000 remote error : timeout"),
        (PartyStatus.UNREACHABLE, "down", 105, "host 10000 remote error : unreachable: down"),
        (PartyStatus.MISMATCH, "host return code 104 host msg :null", 2104, "host return code 104 host msg :null"),
        (PartyStatus.INTERNAL, "host return code 102 host msg :", 2102, "host return code 102 host msg :"),
        (PartyStatus.REJECTED, "host return code 124 host msg :full", 2124, "host return code 124 host msg :full"),
        (PartyStatus.UNREACHABLE, "host return code 628 host msg :", 2628, "host return code 628 host msg :"),
        (PartyStatus.NOT_FOUND, "host return code 102 host msg :", 2113, "host return code 113 host msg :"),
        (PartyStatus.INTERNAL, "host return code -7 host msg :", 2110, "host return code 110 host msg :host return"),
    ],
)
def test_a_host_has_its_own_code_in_a_call_and_in_a_row(status: PartyStatus, reason: str, code: int, text: str) -> None:
    """A reason that is another row's does not count."""
    error = lacking(status, reason)
    assert error.failure is not None
    row = host_failure(error.failure)
    assert failure(error) == (row[0], Code.UNAVAILABLE, row[1])
    assert (row[0], row[1].startswith(text)) == (code, True), row


@pytest.mark.parametrize(
    ("status", "reason", "whole"),
    [
        (PartyStatus.TIMEOUT, "", True),
        (PartyStatus.REJECTED, f"{NO_MODEL}: m/2", True),
        (PartyStatus.REJECTED, f"{OVER_LIMIT}: 9 users", True),
        (PartyStatus.REJECTED, "rejected: no", False),
        (PartyStatus.NOT_FOUND, "", False),
    ],
)
def test_a_call_fails_as_a_whole_or_row_by_row(status: PartyStatus, reason: str, whole: bool) -> None:
    assert is_of_a_call(errors.HostFailure("10000", status, reason)) == whole


def test_callers_of_the_first_line_are_told_whose_fault_it_is() -> None:
    peer, caller = errors.PeerUnavailableError("x"), errors.UnknownNameError("x")
    assert [of_first_line(code, peer) for code in (105, 2113, 2104)] == [2105, 2113, 2104]
    assert [of_first_line(code, caller) for code in (0, 100, 104)] == [0, 1100, 1104]
