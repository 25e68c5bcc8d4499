"""The in-memory twin of the matrix cipher, for tests in one process. It encrypts nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from training.privacy.matrix_cipher import (
    FixedPoint,
    Floats,
    KeyPair,
    MaskedReply,
    MatrixCipher,
    ProtocolError,
    Residues,
    Shape,
)
from training.privacy.randomness import uniform_below


@dataclass(frozen=True, slots=True)
class PlaintextTwin(MatrixCipher):
    """Exact arithmetic in the clear, with the same masks, bounds and errors as the real cipher.

    It cannot be used between two processes by mistake: its "ciphertexts" are tickets to values that stay inside this
    object, and the object refuses to be pickled.
    """

    fixed_point: FixedPoint = field(default_factory=FixedPoint)
    _kept: dict[bytes, Any] = field(default_factory=dict, repr=False)

    @property
    def modulus(self) -> int:
        return (1 << 50) - 27

    def create_keys(self) -> KeyPair:
        key = secrets.token_bytes(16)
        return KeyPair(secret=key, public=key)

    def encrypt(self, secret: bytes, shape: Shape, vector: Floats) -> bytes:
        return self._keep(secret, self.fixed_point.vector(vector, shape))

    def multiply(self, public: bytes, shape: Shape, matrix: Floats, query: bytes) -> MaskedReply:
        vector = self._take(public, query)
        if vector.shape != (shape.rows,):
            raise ProtocolError("the encrypted vector has another length than agreed")
        masks = uniform_below(self.modulus, shape.columns)
        sums = self.fixed_point.matrix(matrix, shape, self.modulus).T @ vector
        return MaskedReply(self._keep(public, (sums.astype(object) + masks) % self.modulus), masks)

    def open_sums(self, secret: bytes, shape: Shape, reply: bytes) -> Residues:
        sums = self._take(secret, reply)
        if sums.shape != (shape.columns,):
            raise ProtocolError("the masked reply has another number of columns than agreed")
        return np.asarray(sums, dtype=np.uint64)

    def __reduce__(self) -> NoReturn:
        raise TypeError("PlaintextTwin encrypts nothing and works inside one process only: use BfvCipher")

    def _keep(self, key: bytes, value: Any) -> bytes:
        ticket = secrets.token_bytes(16)
        self._kept[key + ticket] = value
        return ticket

    def _take(self, key: bytes, ticket: bytes) -> Any:
        if key + ticket not in self._kept:
            raise ProtocolError("no such ticket for this key: PlaintextTwin works inside one process only")
        return self._kept[key + ticket]
