"""Points of Curve25519 for private set intersection: hashing ids to the curve, and blinding by X25519 (RFC 7748).

Blinding commutes, a(bP) = b(aP), which is the idea of Meadows, "A more efficient cryptographic matchmaking protocol"
(IEEE S&P 1986), and Huberman, Franklin, Hogg, "Enhancing privacy and trust in electronic communities" (EC 1999).

Points travel as flat bytes, 32 for each: the u-coordinate, little-endian. The functions are pure and take what pickles,
so that they run in other processes on chunks.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

POINT_BYTES = 32
PRIME = 2**255 - 19
COEFFICIENT = 486662  # of v^2 = u^3 + 486662 u^2 + u
DOMAIN = b"tessera/psi/curve25519/v1\0"


class PointError(ValueError):
    """Bytes that are no points, or a multiplication whose result is zero (a point of small order)."""


def new_scalar() -> bytes:
    """A secret for one job and one peer, from the operating system's generator."""
    return secrets.token_bytes(POINT_BYTES)


def permutation(count: int) -> npt.NDArray[np.intp]:
    """The numbers below `count` in an order drawn from the operating system's generator."""
    keys = np.frombuffer(os.urandom(16 * count), dtype=np.uint64).reshape(2, count)
    return np.lexsort(keys)


def hash_to_curve(identifier: str) -> bytes:
    """A point that depends on the id alone.

    SHA-256 with a counter until the candidate is on the curve itself, not on its twist: after blinding the peer could
    tell the two apart, which would be one bit of every id.
    """
    seed = hashlib.sha256(DOMAIN + identifier.encode()).digest()
    counter = 0
    while True:
        candidate = hashlib.sha256(seed + counter.to_bytes(4, "big")).digest()
        u = int.from_bytes(candidate, "little") & (2**255 - 1)
        if 0 < u < PRIME and is_on_curve(u):
            return u.to_bytes(POINT_BYTES, "little")
        counter += 1


def is_on_curve(u: int) -> bool:
    """Whether a point with this u-coordinate is on the curve: u^3 + 486662 u^2 + u is a square modulo the prime."""
    return jacobi(u * (u * (u + COEFFICIENT) + 1) % PRIME, PRIME) == 1


def jacobi(a: int, n: int) -> int:
    """The Jacobi symbol of a and an odd n, which for a prime n is the Legendre symbol (Cohen, "A Course in
    Computational Algebraic Number Theory", algorithm 1.4.10). Four times as fast as pow(a, (n - 1) // 2, n)."""
    sign = 1
    while a:
        zeros = (a & -a).bit_length() - 1
        a >>= zeros
        if zeros & 1 and n & 7 in {3, 5}:
            sign = -sign
        if a & n & 3 == 3:
            sign = -sign
        a, n = n % a, a
    return sign if n == 1 else 0


def blind(scalar: bytes, identifiers: Sequence[str]) -> bytes:
    """The points of ids times the secret, in the same order."""
    return multiply(scalar, b"".join(map(hash_to_curve, identifiers)))


def multiply(scalar: bytes, points: bytes) -> bytes:
    """Every point times the secret. Raises PointError."""
    key = X25519PrivateKey.from_private_bytes(scalar)
    keys = [X25519PublicKey.from_public_bytes(point) for point in each(points)]
    try:
        return b"".join(map(key.exchange, keys))
    except ValueError:  # what the library says of a result that is all zero
        raise PointError("a point of small order") from None


def each(points: bytes) -> Iterator[bytes]:
    """The points one by one. Raises PointError if the length does not fit or a point is zero."""
    if len(points) % POINT_BYTES:
        raise PointError(f"{len(points)} bytes are not a whole number of points of {POINT_BYTES} bytes")
    zero = bytes(POINT_BYTES)
    for start in range(0, len(points), POINT_BYTES):
        point = points[start : start + POINT_BYTES]
        if point == zero:
            raise PointError("an all-zero point")
        yield point
