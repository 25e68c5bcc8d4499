"""Attributions: what a reply carries so that an outcome, months later, finds the variant and the score it belongs to.

Sealed with AES-SIV (RFC 5297) under a key derived from the secret that all replicas share: nobody else can read or make
one. No user id is in it. SIV, because it has no nonce that replicas could repeat between them.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SCHEMA = 1
ID_BYTES = 12
_HEAD = struct.Struct("<BQI")
"""Schema, revision of the service, bytes of its name; then service, variant, and what differs by answer."""
_TAIL = struct.Struct("<dd12s")
"""Score, Unix time, a number that no other answer has."""
_COUNTER = struct.Struct("<8sI")


class AttributionError(ValueError):
    """Not an attribution of this party, or damaged."""


@dataclass(frozen=True, slots=True)
class Attributed:
    """What an attribution says. `variant` is `model:version`, also when the caller named no service."""

    service: str
    revision: int
    variant: str
    score: float
    time_s: float
    id: bytes


def head(service: str, revision: int, variant: str) -> bytes:
    """What all attributions of a variant begin with."""
    name = service.encode()
    return _HEAD.pack(SCHEMA, revision, len(name)) + name + variant.encode()


class Seal:
    """Makes and opens attributions. `secret`: the one all replicas share."""

    def __init__(self, secret: bytes) -> None:
        key = HKDF(SHA256(), 64, salt=None, info=b"tessera attribution").derive(secret)
        self._siv = AESSIV(key)
        self._begin()

    def make(self, head: bytes, score: float, time_s: float) -> bytes:
        self._made += 1
        if self._made >> 32:
            self._begin()
        return self._siv.encrypt(head + _TAIL.pack(score, time_s, _COUNTER.pack(self._run, self._made)), None)

    def open(self, attribution: bytes) -> Attributed:
        """Raises AttributionError."""
        try:
            plain = self._siv.decrypt(attribution, None)
        except (InvalidTag, ValueError):
            raise AttributionError("not an attribution of this party, or damaged") from None
        if plain[0] != SCHEMA:
            raise AttributionError(f"an attribution of schema {plain[0]}, this version reads {SCHEMA}")
        _, revision, length = _HEAD.unpack_from(plain)
        score, time_s, id_ = _TAIL.unpack_from(plain, len(plain) - _TAIL.size)
        names = plain[_HEAD.size : -_TAIL.size]
        return Attributed(names[:length].decode(), revision, names[length:].decode(), score, time_s, id_)

    def _begin(self) -> None:
        self._run, self._made = secrets.token_bytes(8), 0
