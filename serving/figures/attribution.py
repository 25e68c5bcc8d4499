"""Attributions: what a reply carries so that an outcome, months later, finds the variant and the score it belongs to.

Sealed with AES-256-GCM (NIST SP 800-38D) under a key derived from the secret that all replicas share: nobody else can
read or make one. No user id is in it. The nonce is 64 random bits of the process and a count, so that replicas do not
repeat each other's: by chance two of 100 000 processes do with 3e-10. Other ciphers cost more on the path of a request.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SCHEMA = 1
ID_BYTES = 12
_HEAD = struct.Struct("<BQI")
"""Schema, revision of the service, bytes of its name; then service, variant, and what differs by answer."""
_TAIL = struct.Struct("<dd")
"""Score, Unix time."""
_NONCE = struct.Struct("<8sI")
"""Before the rest, in the clear; no other answer has it."""


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
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=None, info=b"tessera attribution").derive(secret))
        self._begin()

    def make(self, head: bytes, score: float, time_s: float) -> bytes:
        self._made += 1
        if self._made >> 32:
            self._begin()
        nonce = _NONCE.pack(self._run, self._made)
        return nonce + self._cipher.encrypt(nonce, head + _TAIL.pack(score, time_s), None)

    def open(self, attribution: bytes) -> Attributed:
        """Raises AttributionError."""
        id_ = attribution[:ID_BYTES]
        try:
            plain = self._cipher.decrypt(id_, attribution[ID_BYTES:], None)
        except (InvalidTag, ValueError):
            raise AttributionError("not an attribution of this party, or damaged") from None
        if plain[0] != SCHEMA:
            raise AttributionError(f"an attribution of schema {plain[0]}, this version reads {SCHEMA}")
        _, revision, length = _HEAD.unpack_from(plain)
        score, time_s = _TAIL.unpack_from(plain, len(plain) - _TAIL.size)
        names = plain[_HEAD.size : -_TAIL.size]
        return Attributed(names[:length].decode(), revision, names[length:].decode(), score, time_s, id_)

    def _begin(self) -> None:
        self._run, self._made = secrets.token_bytes(8), 0
