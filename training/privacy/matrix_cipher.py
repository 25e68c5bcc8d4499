"""The contract of a matrix cipher: X^T d where one party owns the columns X and the other the vector d and the key.

The order of one product:

    key owner      encrypt(secret, shape, d)        -> query   ------>
    column owner                         <------ reply, masks  <- multiply(public, shape, X, query)
    key owner      open_sums(secret, shape, reply)  -> sums    ------>
    column owner                                      X^T d    <- unmask(sums, masks)

The key owner sees only slots under a uniform mask and returns exactly one sum per declared column: more would make its
decryption an oracle. Both parties are semi-honest. The product is exact on the inputs as rounded by `FixedPoint`.

Every method is a pure function of bytes and arrays, may take milliseconds to seconds while holding the GIL, and is
meant to run in a spawned process; the cipher itself is a small value that pickles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Residues = npt.NDArray[np.uint64]


class CipherError(Exception):
    """A product under encryption cannot be computed."""


class ProtocolError(CipherError):
    """The peer's bytes are not what the protocol says: damaged, of another shape, or under another key."""


class CapacityError(CipherError):
    """Our own values do not fit into the plaintext space; the text says what to change, `column` which it is."""

    def __init__(self, text: str, column: int | None = None) -> None:
        super().__init__(text, column)
        self.text = text
        self.column = column

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Shape:
    """What both parties agree on before a product: X is (rows, columns), d is (rows,) and |d| <= bound."""

    rows: int
    columns: int
    bound: float = 1.0


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The secret half never leaves its owner; the public half lets the peer re-randomise."""

    secret: bytes = field(repr=False)
    public: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MaskedReply:
    """`reply` goes to the key owner; `masks` (columns,) stays with the column owner until `unmask`."""

    reply: bytes = field(repr=False)
    masks: Residues = field(repr=False)


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Fractional bits of both factors: values are rounded to multiples of 2^-bits."""

    matrix_bits: int = 16
    vector_bits: int = 16

    def vector(self, values: Floats, shape: Shape) -> npt.NDArray[np.int64]:
        """d as integers. Raises CapacityError when it is not (rows,), not finite, or beyond the agreed bound."""
        if values.shape != (shape.rows,):
            raise CapacityError(f"the vector has shape {values.shape}, agreed were {shape.rows} rows")
        if not np.all(np.abs(values) <= shape.bound):
            raise CapacityError(f"the vector has a value that is not finite or beyond the agreed bound {shape.bound:g}")
        return np.rint(np.ldexp(values, self.vector_bits)).astype(np.int64)

    def matrix(self, values: Floats, shape: Shape, modulus: int) -> npt.NDArray[np.int64]:
        """X as integers. Raises CapacityError unless 2 * rows * max|x| * bound < modulus after rounding."""
        if values.shape != (shape.rows, shape.columns):
            raise CapacityError(f"the matrix has shape {values.shape}, agreed was {(shape.rows, shape.columns)}")
        broken = np.flatnonzero(~np.isfinite(values).all(axis=0))
        if broken.size:
            raise CapacityError("a column holds NaN or infinity: impute it before training", int(broken[0]))
        largest = np.rint(np.ldexp(np.abs(values).max(axis=0), self.matrix_bits))
        room = modulus / (2.0 * shape.rows * np.ceil(np.ldexp(shape.bound, self.vector_bits)))
        if largest.max() >= room:
            allowed = np.ldexp(room, -self.matrix_bits)
            raise CapacityError(
                f"a column holds a value beyond {allowed:g}, the most that {shape.rows} rows leave room for: scale or"
                " clip it, or take smaller batches",
                int(largest.argmax()),
            )
        return np.rint(np.ldexp(values, self.matrix_bits)).astype(np.int64)

    def product(self, sums: Residues, modulus: int) -> Floats:
        """X^T d in the original units from its residues modulo `modulus`."""
        signed = sums.astype(np.int64)
        signed[signed > modulus // 2] -= modulus
        return np.ldexp(signed.astype(np.float64), -(self.matrix_bits + self.vector_bits))


class MatrixCipher(ABC):
    """One implementation of the four steps above."""

    fixed_point: FixedPoint

    @property
    @abstractmethod
    def modulus(self) -> int:
        """The plaintext modulus: masks and sums are residues of it."""

    @abstractmethod
    def create_keys(self) -> KeyPair:
        """A fresh pair from the system's generator; one pair serves a whole job."""

    @abstractmethod
    def encrypt(self, secret: bytes, shape: Shape, vector: Floats) -> bytes:
        """Key owner: the query for `vector` (rows,). Raises CapacityError."""

    @abstractmethod
    def multiply(self, public: bytes, shape: Shape, matrix: Floats, query: bytes) -> MaskedReply:
        """Column owner: the masked product. Columns of zeros are allowed. Raises ProtocolError or CapacityError."""

    @abstractmethod
    def open_sums(self, secret: bytes, shape: Shape, reply: bytes) -> Residues:
        """Key owner: one masked sum per declared column. Raises ProtocolError when the reply does not decrypt."""

    def unmask(self, sums: Residues, masks: Residues) -> Floats:
        """Column owner: X^T d (columns,). Raises ProtocolError when `sums` are not residues, one per column."""
        if sums.shape != masks.shape or np.any(sums >= self.modulus):
            raise ProtocolError(f"expected {masks.size} sums below the plaintext modulus, the peer sent something else")
        modulus = np.uint64(self.modulus)
        return self.fixed_point.product((sums + (modulus - masks)) % modulus, self.modulus)
