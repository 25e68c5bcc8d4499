"""One suite over every matrix cipher."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.privacy.bfv import BfvCipher
from training.privacy.matrix_cipher import CapacityError, KeyPair, MatrixCipher, ProtocolError, Shape
from training.privacy.memory import PlaintextTwin


@pytest.fixture(scope="module", params=[BfvCipher, PlaintextTwin], ids=["bfv", "twin"])
def cipher(request):
    return request.param()


@pytest.fixture(scope="module")
def keys(cipher: MatrixCipher) -> KeyPair:
    return cipher.create_keys()


def multiply(cipher: MatrixCipher, keys: KeyPair, matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    shape = Shape(*matrix.shape)
    masked = cipher.multiply(keys.public, shape, matrix, cipher.encrypt(keys.secret, shape, vector))
    return cipher.unmask(cipher.open_sums(keys.secret, shape, masked.reply), masked.masks)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 2**16) / 2**16


def inputs(rows: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, columns)) * 3, generator.uniform(-1, 1, rows)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 900), columns=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_the_product_is_exact_on_rounded_inputs(cipher, keys, rows, columns, seed):
    matrix, vector = inputs(rows, columns, seed)
    assert np.array_equal(multiply(cipher, keys, matrix, vector), rounded(matrix).T @ rounded(vector))


@pytest.mark.parametrize(("rows", "columns"), [(8192, 3), (8193, 2), (20_000, 2), (400, 41), (1, 1)])
def test_shapes_that_need_several_ciphertexts(cipher, keys, rows, columns):
    matrix, vector = np.clip(inputs(rows, columns)[0], -6, 6), inputs(rows, columns)[1]
    assert np.array_equal(multiply(cipher, keys, matrix, vector), rounded(matrix).T @ rounded(vector))


def test_extreme_values_do_not_wrap(cipher, keys):
    matrix, vector = np.full((256, 4), 500.0), np.ones(256)
    matrix[:, 1] *= -1
    assert multiply(cipher, keys, matrix, vector).tolist() == [128_000.0, -128_000.0, 128_000.0, 128_000.0]


@pytest.mark.parametrize("zero", [[1], [0, 1, 2]])
def test_columns_of_zeros_give_zero(cipher, keys, zero):
    matrix, vector = inputs(300, 3)
    matrix[:, zero] = 0
    assert np.array_equal(multiply(cipher, keys, matrix, vector), rounded(matrix).T @ rounded(vector))


def test_a_zero_vector_gives_zero(cipher, keys):
    assert not multiply(cipher, keys, inputs(50, 3)[0], np.zeros(50)).any()


def test_what_the_key_owner_sees_is_masked(cipher, keys):
    matrix, vector = inputs(300, 4)
    shape = Shape(300, 4)
    query = cipher.encrypt(keys.secret, shape, vector)
    replies = [cipher.multiply(keys.public, shape, matrix, query) for _ in range(2)]
    first, second = (cipher.open_sums(keys.secret, shape, masked.reply) for masked in replies)
    assert not np.any(first == second)
    assert np.array_equal(*[cipher.unmask(s, m.masks) for s, m in zip((first, second), replies, strict=True)])


def test_sums_that_would_wrap_are_refused(cipher, keys):
    matrix, vector = inputs(400, 3)
    matrix[7, 1] = 1e7
    with pytest.raises(CapacityError, match="scale or clip") as caught:
        multiply(cipher, keys, matrix, vector)
    assert caught.value.column == 1


def test_the_limit_is_half_the_modulus(cipher, keys):
    limit = cipher.modulus / (2 * 64 * 2**32)
    multiply(cipher, keys, np.full((64, 1), limit * 0.999), np.ones(64))
    with pytest.raises(CapacityError):
        multiply(cipher, keys, np.full((64, 1), limit * 1.001), np.ones(64))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_columns_are_named(cipher, keys, bad):
    matrix, vector = inputs(40, 3)
    matrix[3, 2] = bad
    with pytest.raises(CapacityError, match="holds NaN") as caught:
        multiply(cipher, keys, matrix, vector)
    assert pickle.loads(pickle.dumps(caught.value)).column == 2  # it comes back from another process


@pytest.mark.parametrize("bad", [np.nan, 1.5, -1.5])
def test_vectors_beyond_the_bound_are_refused(cipher, keys, bad):
    with pytest.raises(CapacityError, match="bound 1"):
        cipher.encrypt(keys.secret, Shape(3, 1), np.array([0.0, bad, 0.5]))


def test_values_of_another_shape_are_refused(cipher, keys):
    shape = Shape(10, 2)
    with pytest.raises(CapacityError, match="agreed were 10 rows"):
        cipher.encrypt(keys.secret, shape, np.zeros(9))
    query = cipher.encrypt(keys.secret, shape, np.zeros(10))
    with pytest.raises(CapacityError, match=r"agreed was \(10, 2\)"):
        cipher.multiply(keys.public, shape, np.zeros((10, 3)), query)


@pytest.mark.parametrize("change", [lambda b: b"", lambda b: b[:-1], lambda b: b + b"x", lambda b: bytes(len(b))])
def test_garbage_is_one_clear_error(cipher, keys, change):
    shape = Shape(10, 2)
    matrix, vector = inputs(10, 2)
    query = cipher.encrypt(keys.secret, shape, vector)
    with pytest.raises(ProtocolError):
        cipher.multiply(keys.public, shape, matrix, change(query))
    masked = cipher.multiply(keys.public, shape, matrix, query)
    with pytest.raises(ProtocolError):
        cipher.open_sums(keys.secret, shape, change(masked.reply))


def test_another_key_is_refused(cipher, keys):
    shape = Shape(10, 2)
    matrix, vector = inputs(10, 2)
    masked = cipher.multiply(keys.public, shape, matrix, cipher.encrypt(keys.secret, shape, vector))
    with pytest.raises(ProtocolError):
        cipher.open_sums(cipher.create_keys().secret, shape, masked.reply)


@pytest.mark.parametrize("sums", [np.zeros(3, np.uint64), np.full(2, 2**63, np.uint64), np.zeros((2, 1), np.uint64)])
def test_sums_that_are_not_one_residue_per_column_are_refused(cipher, keys, sums):
    with pytest.raises(ProtocolError, match="expected 2 sums"):
        cipher.unmask(sums, np.zeros(2, np.uint64))


def test_secrets_do_not_show_in_texts(cipher, keys):
    assert "secret" not in repr(keys)
