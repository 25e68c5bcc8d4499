"""Each protection is there and does its work: the attacks succeed without it and fail with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.unit.training.privacy.ratio_attack import recover_slots, second_polynomial
from training.privacy import protections, seal
from training.privacy.bfv import BfvCipher, column_product, layout_of, protected
from training.privacy.framing import split_pieces
from training.privacy.layout import Integers, Layout
from training.privacy.matrix_cipher import KeyPair, Shape
from training.privacy.protections import flooded, masked, rerandomised, switched_down
from training.privacy.randomness import uniform_below

SHAPE = Shape(400, 20)


class Exchange:
    """One product, stopped before the protections: what the host holds in its hands."""

    def __init__(self) -> None:
        generator = np.random.default_rng(3)
        cipher = BfvCipher()
        self.layout: Layout = layout_of(SHAPE)
        self.keys: KeyPair = cipher.create_keys()
        self.matrix = generator.normal(size=(SHAPE.rows, SHAPE.columns))
        stream = cipher.encrypt(self.keys.secret, SHAPE, generator.uniform(-1, 1, SHAPE.rows))
        (piece,) = split_pieces(stream, 1)
        self.query: Any = seal.load_ciphertext(piece, seal.query_level(), "query")
        self.tile: Integers = self.layout.tile(cipher.fixed_point.matrix(self.matrix, SHAPE, cipher.modulus), 0)
        self.mask = uniform_below(seal.PLAIN_MODULUS, seal.SLOTS)

    @property
    def secret_slots(self) -> np.ndarray:
        return (self.tile[0] % seal.PLAIN_MODULUS).astype(np.uint64)

    def product(self) -> Any:
        factor = seal.sealapi().Ciphertext()
        seal.evaluator().transform_to_ntt(self.query, factor)
        return column_product([factor], self.tile, self.keys.public)

    def budget(self, ciphertext: Any) -> int:
        return seal.decryptor(self.keys.secret).invariant_noise_budget(ciphertext)

    def slots(self, ciphertext: Any) -> np.ndarray:
        plain = seal.sealapi().Plaintext()
        seal.decryptor(self.keys.secret).decrypt(ciphertext, plain)
        return np.array(seal.encoder().decode_uint64(plain), dtype=np.uint64)


@pytest.fixture(scope="module")
def exchange() -> Exchange:
    return Exchange()


def test_the_ratio_attack_recovers_every_point_without_a_fresh_zero(exchange):
    """Masks and noise do not help: they only touch the first polynomial."""
    recovered = recover_slots(exchange.query, flooded(masked(exchange.product(), exchange.mask)))
    assert recovered is not None
    assert np.array_equal(recovered, exchange.secret_slots)


def test_a_fresh_zero_alone_stops_the_ratio_attack(exchange):
    assert recover_slots(exchange.query, rerandomised(exchange.product(), exchange.keys.public)) is None


def test_the_ratio_attack_fails_on_what_is_sent(exchange):
    reply = protected(exchange.product(), exchange.mask, exchange.keys.public)
    assert recover_slots(exchange.query, reply) is None
    assert recover_slots(switched_down(exchange.query), reply) is None


def test_every_reply_has_a_zero_of_its_own(exchange):
    """Mask and noise leave the second polynomial alone, so it would repeat without a fresh zero."""
    replies = [protected(exchange.product(), exchange.mask, exchange.keys.public) for _ in range(2)]
    assert second_polynomial(replies[0]) != second_polynomial(replies[1])


def test_every_slot_is_masked(exchange):
    """Without the mask the key owner reads products of single rows; with it, also unused slots are uniform."""
    plain = exchange.slots(exchange.product())
    unused = exchange.layout.side * exchange.layout.height
    assert not plain[unused:].any()
    reply = exchange.slots(protected(exchange.product(), exchange.mask, exchange.keys.public))
    assert np.array_equal(reply, (plain + exchange.mask) % np.uint64(seal.PLAIN_MODULUS))
    assert reply[unused:].all()


def test_flooding_hides_the_noise_by_at_least_forty_bits(exchange):
    bare = rerandomised(masked(exchange.product(), exchange.mask), exchange.keys.public)
    sent = protected(exchange.product(), exchange.mask, exchange.keys.public)
    assert exchange.budget(bare) - exchange.budget(flooded(bare)) >= 40
    assert exchange.budget(switched_down(bare)) - exchange.budget(sent) >= 40


def test_the_flooding_noise_fills_its_range():
    noise = protections._uniform_noise()
    product = math.prod(seal.primes())
    weights = [product // prime * pow(product // prime, -1, prime) for prime in seal.primes()]
    values = [sum(int(r) * weight for r, weight in zip(row, weights, strict=True)) % product for row in noise.T]
    signed = [value if value <= product // 2 else value - product for value in values]
    bound = 1 << protections.FLOODING_BITS
    assert all(-bound <= value < bound for value in signed)
    quarters = np.histogram([value / bound for value in signed], bins=4, range=(-1, 1))[0]
    assert np.all(np.abs(quarters - seal.SLOTS / 4) < 6 * np.sqrt(seal.SLOTS * 3 / 16))


def test_enough_budget_remains_for_decryption(exchange):
    assert exchange.budget(protected(exchange.product(), exchange.mask, exchange.keys.public)) > 5
