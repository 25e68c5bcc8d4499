"""What a curious key owner can do with a reply: divide its second polynomial by the query's."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from training.privacy import seal

HALF = seal.PLAIN_MODULUS // 2


def recover_slots(query: Any, reply: Any) -> np.ndarray | None:
    """The plain slots that `query` was multiplied by, or None when the ratio is no plaintext."""
    prime = seal.primes()[0]
    ratio = [
        above * pow(below, -1, prime) % prime
        for above, below in zip(second_polynomial(reply), second_polynomial(query), strict=True)
    ]
    coefficients = [value if value <= prime // 2 else value - prime for value in coefficients_of(ratio)]
    if max(map(abs, coefficients)) > HALF + 1:
        return None
    terms = (f"{value % seal.PLAIN_MODULUS:X}x^{power}" for power, value in enumerate(coefficients) if value)
    plain = seal.sealapi().Plaintext(" + ".join(reversed(list(terms))))
    return np.array(seal.encoder().decode_uint64(plain), dtype=np.uint64)


def second_polynomial(ciphertext: Any) -> list[int]:
    """Its residues modulo the first prime, in NTT form."""
    transformed = seal.sealapi().Ciphertext()
    seal.evaluator().transform_to_ntt(ciphertext, transformed)
    values = transformed.dyn_array()
    start = ciphertext.coeff_modulus_size() * seal.SLOTS
    return [values[index] for index in range(start, start + seal.SLOTS)]


def coefficients_of(values: list[int]) -> list[int]:
    """The inverse NTT modulo the first prime, borrowed from SEAL: a ciphertext in NTT form that holds `values`."""
    residues = np.zeros((2, 3, seal.SLOTS), dtype="<u8")
    residues[0, 0] = values
    residues[1, 0] = 1
    body = struct.pack("<4Q?3QdQ", *seal.query_level(), True, 2, seal.SLOTS, 3, 1.0, 1)
    inner = struct.pack("<Q", residues.size) + residues.tobytes()
    loaded = seal.sealapi().Ciphertext()
    seal.load(loaded, header(len(body) + 16 + len(inner)) + body + header(len(inner)) + inner, "test")
    seal.evaluator().transform_from_ntt_inplace(loaded)
    array = loaded.dyn_array()
    return [array[index] for index in range(seal.SLOTS)]


def header(size: int) -> bytes:
    return seal.stream_version() + struct.pack("<BHQ", 0, 0, 16 + size)
