"""What is particular to BFV: damaged ciphertexts, sizes, and work in spawned processes."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from training.privacy import seal
from training.privacy.bfv import BfvCipher, layout_of
from training.privacy.framing import join_pieces, split_pieces
from training.privacy.matrix_cipher import CapacityError, CipherError, ProtocolError, Shape

CIPHER = BfvCipher()
SHAPE = Shape(100, 4)
MATRIX = np.random.default_rng(0).normal(size=(100, 4))
VECTOR = np.random.default_rng(1).uniform(-1, 1, 100)


@pytest.fixture(scope="module")
def keys():
    return CIPHER.create_keys()


@pytest.fixture(scope="module")
def query(keys):
    return CIPHER.encrypt(keys.secret, SHAPE, VECTOR)


def test_security_is_128_bits():
    library = seal.sealapi()
    assert sum(seal.COEFFICIENT_BITS) <= library.CoeffModulus.MaxBitCount(seal.SLOTS, library.SEC_LEVEL_TYPE.TC128)
    assert seal.context().parameters_set()


def test_parameters_beyond_128_bits_are_refused(monkeypatch):
    monkeypatch.setattr(seal, "COEFFICIENT_BITS", (60, 60, 60, 60))
    with pytest.raises(CipherError, match="SEAL refuses"):
        seal.context.__wrapped__()


def test_breast_cancer_fits_one_ciphertext_each_way():
    layout = layout_of(Shape(400, 20))
    assert (layout.chunks, layout.groups) == (1, 1)


def test_absurd_shapes_are_refused():
    with pytest.raises(CapacityError, match="too many for one batch"):
        layout_of(Shape(10**9, 1))


@pytest.mark.parametrize("position", [0, 1, 2, 3, 5, 8, 30, 60, 100, 5_000, 196_000])
def test_a_flipped_bit_never_decrypts(keys, query, position):
    (piece,) = split_pieces(query, 1)
    damaged = bytearray(piece)
    damaged[position] ^= 64
    with pytest.raises(ProtocolError):  # damage within the ring shows only at the key owner
        masked = CIPHER.multiply(keys.public, SHAPE, MATRIX, join_pieces([bytes(damaged)]))
        CIPHER.open_sums(keys.secret, SHAPE, masked.reply)


def test_random_bytes_are_refused(keys):
    with pytest.raises(ProtocolError, match="encrypted vector is damaged"):
        CIPHER.multiply(keys.public, SHAPE, MATRIX, join_pieces([os.urandom(200_000)]))


def test_a_ciphertext_of_another_level_is_refused(keys, query):
    reply = CIPHER.multiply(keys.public, SHAPE, MATRIX, query).reply
    with pytest.raises(ProtocolError, match="another shape"):
        CIPHER.multiply(keys.public, SHAPE, MATRIX, reply)
    with pytest.raises(ProtocolError, match="another shape"):
        CIPHER.open_sums(keys.secret, SHAPE, query)


def test_a_damaged_public_key_is_refused(query):
    with pytest.raises(ProtocolError, match="public key is damaged"):
        CIPHER.multiply(b"not a key", SHAPE, MATRIX, query)


def test_a_reply_for_another_number_of_ciphertexts_is_refused(keys, query):
    with pytest.raises(ProtocolError, match="sent 1 ciphertexts, the agreed shape needs"):
        CIPHER.multiply(keys.public, Shape(20_000, 1), np.ones((20_000, 1)), query)


def test_it_works_across_spawned_processes(keys):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        query = pool.submit(CIPHER.encrypt, keys.secret, SHAPE, VECTOR).result()
        masked = pool.submit(CIPHER.multiply, keys.public, SHAPE, MATRIX, query).result()
    product = CIPHER.unmask(CIPHER.open_sums(keys.secret, SHAPE, masked.reply), masked.masks)
    assert np.allclose(product, MATRIX.T @ VECTOR, atol=1e-2)
