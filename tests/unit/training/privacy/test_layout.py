from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.privacy.layout import Layout
from training.privacy.matrix_cipher import Shape

SLOTS = 64
MODULUS = 2**50


@given(rows=st.integers(1, 200), columns=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_slotwise_products_add_up_to_the_matrix_product(rows, columns, seed):
    generator = np.random.default_rng(seed)
    matrix, vector = generator.integers(-9, 9, (rows, columns)), generator.integers(-9, 9, rows)
    layout = Layout.choose(Shape(rows, columns), SLOTS)
    replies = np.stack([(layout.spread(vector) * layout.tile(matrix, g)).sum(0) for g in range(layout.groups)])
    sums = layout.column_sums((replies % MODULUS).astype(np.uint64), MODULUS)
    assert np.array_equal(sums.astype(np.int64), (matrix.T @ vector) % MODULUS)


@pytest.mark.parametrize(
    ("rows", "columns", "chunks", "groups"),
    [(16, 4, 1, 1), (64, 1, 1, 1), (65, 1, 2, 1), (3, 21, 1, 1), (3, 22, 2, 1), (1, 65, 1, 2)],
)
def test_the_fewest_ciphertexts_are_taken(rows, columns, chunks, groups):
    layout = Layout.choose(Shape(rows, columns), SLOTS)
    assert (layout.chunks, layout.groups) == (chunks, groups)
