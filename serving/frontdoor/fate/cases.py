"""Names of jobs: those that callers give, and those that tell who made them, so that what is lost differs from what
never was."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from enum import Enum

import msgspec

from serving.reports import REPORT_TTL_S

UNHEARD_S = REPORT_TTL_S
"""A process that has begun lately may not have been heard of yet."""
_PART, _SIZE = 4, 16


class Whereabouts(Enum):
    """Of a case that is not at hand."""

    UNKNOWN = "unknown"
    """Named by a caller, or by nobody."""
    OVER = "over"
    ELSEWHERE = "elsewhere"
    GONE = "gone"
    """With the process that had it."""


class Cases:
    """Of one process. `generation` is its name, `living` the names of all that live; `clock` is Unix seconds.

    A name that is made here has four parts of four bytes, in hexadecimal: process, second, chance and a code that binds
    these to who began the job. All replicas of a party have the `secret` of the code.
    """

    def __init__(
        self,
        secret: bytes,
        party: str,
        generation: str,
        living: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = hmac.digest(secret, b"tessera fate jobs", "sha256")
        self._party = party
        self._own = _tag(generation)
        self._living = living
        self._clock = clock

    def make(self, caller: str, party: str) -> str:
        """A new name for a job of that caller."""
        told = self._own + int(self._clock()).to_bytes(_PART, "big") + secrets.token_bytes(_PART)
        return (told + self._code(told, caller, party)).hex()

    def key(self, caller: str, party: str, case: str) -> bytes:
        """Under which it is kept."""
        return b"fate-job:" + hashlib.sha256(msgspec.msgpack.encode((self._party, caller, party, case))).digest()

    def whereabouts(self, caller: str, party: str, case: str, kept_s: float) -> Whereabouts:
        """`kept_s`: after so long nobody has it any more."""
        told = _decoded(case)
        if not hmac.compare_digest(told[-_PART:], self._code(told[:-_PART], caller, party)):
            return Whereabouts.UNKNOWN
        tag, age_s = told[:_PART], self._clock() - int.from_bytes(told[_PART : 2 * _PART], "big")
        if tag == self._own or age_s > kept_s:
            return Whereabouts.OVER
        if age_s < UNHEARD_S or tag in map(_tag, self._living()):
            return Whereabouts.ELSEWHERE
        return Whereabouts.GONE

    def _code(self, told: bytes, caller: str, party: str) -> bytes:
        bound = msgspec.msgpack.encode((self._party, caller, party, told))
        return hmac.digest(self._secret, bound, "sha256")[:_PART]


def _tag(generation: str) -> bytes:
    return hashlib.sha256(generation.encode()).digest()[:_PART]


def _decoded(case: str) -> bytes:
    """Zeros where it is not one of those that are made."""
    try:
        told = bytes.fromhex(case)
    except ValueError:
        told = b""
    return told if len(told) == _SIZE else bytes(_SIZE)
