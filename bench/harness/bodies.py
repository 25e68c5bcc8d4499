"""Requests and checks for the generator's processes. Users count from `first` and start over after `users`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.harness.population import (
    PATTERNS,
    SERVICE,
    USER_BYTES,
    expected_scores,
    guest_columns,
    guest_numbers,
    user,
)
from tessera.v1 import inference_pb2 as wire

Body = Callable[[int], bytes]
Check = Callable[[bytes, bytes], bool]

_TOLERANCE = 1e-9
_LOCAL_TOLERANCE = 1e-4  # float32 in a deep network
_CASE_TAG, _USER_TAG, _BATCH_USER_TAG = b"\x22", b"\x2a", bytes((0x22, USER_BYTES))
_LENGTH = bytes((USER_BYTES,))


def predict(signature: str, first: int, users: int, cases: bool = False, named: bool = False) -> Body:
    """One user a call. With `cases` every call also names a case, the user's own. `named`: features by name instead of
    packed. `signature` is the digest in hex."""
    fixed = wire.PredictRequest(service=SERVICE)
    if named:
        fixed.numbers.update(zip(guest_columns(), guest_numbers(), strict=True))
    else:
        fixed.vector.signature_hash = bytes.fromhex(signature)
        fixed.vector.numbers.extend(guest_numbers())
    prefix = fixed.SerializeToString()

    def body(number: int) -> bytes:
        name = user(first + number % users).encode()
        case = _CASE_TAG + _LENGTH + name if cases else b""
        return prefix + case + _USER_TAG + _LENGTH + name

    return body


def predict_check(hosts: int, levels: tuple[int, ...] = (), cache: int | None = None) -> Check:
    """The score must be the user's, complete. `levels`: where each host's part may come from; `cache`: the answer's."""
    scores, allowed = expected_scores(hosts), set(levels)

    def right(request: bytes, raw: bytes) -> bool:
        reply = wire.PredictReply.FromString(raw)
        expected = scores[int(request[1 - USER_BYTES :]) % PATTERNS]
        if not reply.complete or len(reply.score) != 1 or abs(reply.score[0] - expected) > _TOLERANCE:
            return False
        if allowed and any(part.level not in allowed for part in reply.parties):
            return False
        return cache is None or reply.cache == cache

    return right


def batch(signature: str, first: int, users: int, rows: int) -> Body:
    """`rows` users a call, packed."""
    fixed = wire.BatchPredictRequest(service=SERVICE)
    fixed.matrix.signature_hash = bytes.fromhex(signature)
    fixed.matrix.numbers = np.tile(np.array(guest_numbers()), rows).astype("<f8").tobytes()
    prefix = fixed.SerializeToString()
    calls = users // rows
    names = b"".join(_BATCH_USER_TAG + user(first + number).encode() for number in range(calls * rows))
    size = rows * (USER_BYTES + len(_BATCH_USER_TAG))
    return lambda number: prefix + names[number % calls * size : (number % calls + 1) * size]


def batch_check(hosts: int, rows: int) -> Check:
    """Every row complete, with its user's score."""
    scores = np.array(expected_scores(hosts))
    size = rows * (USER_BYTES + len(_BATCH_USER_TAG))

    def right(request: bytes, raw: bytes) -> bool:
        reply = wire.BatchPredictReply.FromString(raw)
        first = int(request[len(request) - size + len(_BATCH_USER_TAG) + 1 :][: USER_BYTES - 1])
        expected = scores[(first + np.arange(rows)) % PATTERNS]
        return reply.statuses == bytes(rows) and bool(np.abs(np.array(reply.scores) - expected).max() < _TOLERANCE)

    return right


def score_check(score: float) -> Check:
    """A local model's score, which is the same for every call."""

    def right(request: bytes, raw: bytes) -> bool:
        reply = wire.PredictReply.FromString(raw)
        return reply.complete and len(reply.score) == 1 and abs(reply.score[0] - score) < _LOCAL_TOLERANCE

    return right
