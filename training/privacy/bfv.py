"""The matrix cipher over BFV (Brakerski 2012; Fan, Vercauteren 2012), 8192 slots, 128-bit security.

The key owner learns nothing of the columns but their agreed shape, the column owner nothing but the sums it unmasks, as
long as both follow the protocol: a key owner that forges the noise of its query is outside this model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.privacy import seal
from training.privacy.framing import join_pieces, split_pieces
from training.privacy.layout import Integers, Layout
from training.privacy.matrix_cipher import (
    CapacityError,
    FixedPoint,
    Floats,
    KeyPair,
    MaskedReply,
    MatrixCipher,
    ProtocolError,
    Residues,
    Shape,
)
from training.privacy.protections import MAX_CHUNKS, encrypted_zero, flooded, masked, rerandomised, switched_down
from training.privacy.randomness import uniform_below

# Below this the key owner might decode noise as a value.
LEAST_NOISE_BUDGET_BITS = 5


@dataclass(frozen=True, slots=True)
class BfvCipher(MatrixCipher):
    """BFV by SEAL. A product of 20 columns and 400 rows takes one ciphertext each way."""

    fixed_point: FixedPoint = field(default_factory=FixedPoint)

    @property
    def modulus(self) -> int:
        return seal.PLAIN_MODULUS

    def create_keys(self) -> KeyPair:
        generator = seal.sealapi().KeyGenerator(seal.context())
        public = seal.sealapi().PublicKey()
        generator.create_public_key(public)
        return KeyPair(secret=seal.dump(generator.secret_key()), public=seal.dump(public))

    def encrypt(self, secret: bytes, shape: Shape, vector: Floats) -> bytes:
        slots = layout_of(shape).spread(self.fixed_point.vector(vector, shape)) % self.modulus
        encryptor = seal.secret_encryptor(secret)
        # The symmetric form travels as one polynomial and a seed: half the bytes.
        return join_pieces(seal.dump(encryptor.encrypt_symmetric(seal.plaintext(row))) for row in slots)

    def multiply(self, public: bytes, shape: Shape, matrix: Floats, query: bytes) -> MaskedReply:
        layout = layout_of(shape)
        factors = load_query(query, layout)
        integers = self.fixed_point.matrix(matrix, shape, self.modulus)
        masks = uniform_below(self.modulus, layout.groups * layout.slots).reshape(layout.groups, -1)
        replies = (
            protected(column_product(factors, layout.tile(integers, group), public), masks[group], public)
            for group in range(layout.groups)
        )
        return MaskedReply(join_pieces(map(seal.dump, replies)), layout.column_sums(masks, self.modulus))

    def open_sums(self, secret: bytes, shape: Shape, reply: bytes) -> Residues:
        layout = layout_of(shape)
        pieces = split_pieces(reply, layout.groups)
        return layout.column_sums(np.stack([decrypted_slots(secret, piece) for piece in pieces]), self.modulus)


def layout_of(shape: Shape) -> Layout:
    layout = Layout.choose(shape, seal.SLOTS)
    if layout.chunks > MAX_CHUNKS:
        raise CapacityError(f"{shape.rows} rows and {shape.columns} columns are too many for one batch")
    return layout


def load_query(query: bytes, layout: Layout) -> list[Any]:
    """The query's ciphertexts in NTT form: each is multiplied once per group of columns."""
    factors = []
    for piece in split_pieces(query, layout.chunks):
        factor = seal.load_ciphertext(piece, seal.query_level(), "encrypted vector")
        seal.evaluator().transform_to_ntt_inplace(factor)
        factors.append(factor)
    return factors


def column_product(factors: list[Any], tiles: Integers, public: bytes) -> Any:
    """The sum over chunks of ciphertext times tile, not yet protected."""
    products = _products(factors, tiles)
    total = next(products, None)
    if total is None:
        return encrypted_zero(public)
    for product in products:
        seal.evaluator().add_inplace(total, product)
    seal.evaluator().transform_from_ntt_inplace(total)
    return total


def _products(factors: list[Any], tiles: Integers) -> Iterator[Any]:
    """Products in NTT form. SEAL refuses to multiply by zero, so tiles that are zero throughout are left out."""
    for factor, tile in zip(factors, tiles, strict=True):
        if tile.any():
            plain = seal.plaintext(tile % seal.PLAIN_MODULUS)
            seal.evaluator().transform_to_ntt_inplace(plain, seal.query_level())
            product = seal.sealapi().Ciphertext()
            seal.evaluator().multiply_plain(factor, plain, product)
            yield product


def protected(product: Any, mask: Residues, public: bytes) -> Any:
    """All protections together: each alone leaks."""
    return switched_down(flooded(rerandomised(masked(product, mask), public)))


def decrypted_slots(secret: bytes, piece: bytes) -> Residues:
    ciphertext = seal.load_ciphertext(piece, seal.reply_level(), "masked reply")
    decryptor = seal.decryptor(secret)
    if decryptor.invariant_noise_budget(ciphertext) <= LEAST_NOISE_BUDGET_BITS:
        raise ProtocolError("the masked reply does not decrypt: it is damaged or made under another key")
    plain = seal.sealapi().Plaintext()
    decryptor.decrypt(ciphertext, plain)
    return np.array(seal.encoder().decode_uint64(plain), dtype=np.uint64)
