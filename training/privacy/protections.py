"""What the column owner adds to a product before anything goes back to the key owner.

Each protection alone leaks. Without the mask the product decrypts to the columns times the residuals. Without a fresh
encryption of zero the reply's second polynomial divided by the query's is the plain column, whatever was added to the
first. Without flooding the noise, which the key owner can compute, is a linear function of the column.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np

from training.privacy import seal
from training.privacy.matrix_cipher import Residues

# The noise of a product is at most N * t/2 * (21 + 1/2): a coefficient of a fresh symmetric encryption is at most 21
# (centred binomial), rounding adds a half, and a plain coefficient is at most t/2. That is below 2^67; the typical
# noise is 2^60. Uniform noise of 2^120 hides it by 53 bits, and 40 are left when 2^13 chunks add up. The data modulus
# has 180 bits and t 50, so 9 bits of budget remain for decryption.
FLOODING_BITS = 120
MAX_CHUNKS = 1 << 13


def masked(product: Any, mask: Residues) -> Any:
    """Add a uniform residue to every slot, also to those that hold nothing."""
    result = seal.sealapi().Ciphertext()
    seal.evaluator().add_plain(product, seal.plaintext(mask), result)
    return result


def rerandomised(product: Any, public: bytes) -> Any:
    """Add a fresh encryption of zero under the key owner's public key."""
    result = seal.sealapi().Ciphertext()
    seal.evaluator().add(product, encrypted_zero(public), result)
    return result


def encrypted_zero(public: bytes) -> Any:
    zero = seal.sealapi().Ciphertext()
    seal.public_encryptor(public).encrypt_zero(zero)
    return zero


def flooded(product: Any) -> Any:
    """Add (e, 0) with e uniform in [-2^120, 2^120) per coefficient. SEAL has no call for it, so it is loaded."""
    flood, result = seal.sealapi().Ciphertext(), seal.sealapi().Ciphertext()
    seal.load(flood, _noise_stream(_uniform_noise()), "flooding noise")
    seal.evaluator().add(product, flood, result)
    return result


def switched_down(product: Any) -> Any:
    """Drop the last prime: a third smaller, and the low bits of the noise are rounded away."""
    result = seal.sealapi().Ciphertext()
    seal.evaluator().mod_switch_to_next(product, result)
    return result


def _uniform_noise() -> Residues:
    """The same integers, uniform in [-2^120, 2^120), as residues of every prime: (primes, slots)."""
    low, high = np.frombuffer(os.urandom(16 * seal.SLOTS), dtype="<u8").reshape(2, seal.SLOTS)
    top = (high >> np.uint64(63 - (FLOODING_BITS - 60))).astype(object)
    values = ((top << 60) | (low >> np.uint64(4)).astype(object)) - (1 << FLOODING_BITS)
    return np.stack([(values % prime).astype(np.uint64) for prime in seal.primes()])


def _noise_stream(noise: Residues) -> bytes:
    """SEAL's uncompressed stream of the ciphertext (noise, 0)."""
    count = 2 * noise.size
    residues = _header(8 + 8 * count) + struct.pack("<Q", count) + noise.astype("<u8").tobytes()
    residues += bytes(8 * noise.size)
    metadata = struct.pack("<4Q?", *seal.query_level(), False)
    metadata += struct.pack("<3Qd", 2, noise.shape[1], noise.shape[0], 1.0) + struct.pack("<Q", 1)
    return _header(len(metadata) + len(residues)) + metadata + residues


def _header(size: int) -> bytes:
    """Magic, header size and version as the library writes them; no compression; the header's 16 bytes count."""
    return seal.stream_version() + struct.pack("<BHQ", 0, 0, 16 + size)
