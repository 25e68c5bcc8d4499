from __future__ import annotations

import numpy as np
import pytest

from training.privacy.randomness import private_weights, uniform_below


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, (1 << 50) - 27, 1 << 63])
def test_values_stay_below_the_bound(bound):
    drawn = uniform_below(bound, 5000)
    assert drawn.shape == (5000,)
    assert int(drawn.max()) < bound


def test_values_are_uniform_also_where_a_modulo_would_be_biased():
    """3/4 of a power of two: folding instead of rejecting would draw the lower third twice as often."""
    counts = np.bincount(uniform_below(3 << 2, 60_000).astype(np.int64), minlength=12)
    assert np.all(np.abs(counts - 5000) < 6 * np.sqrt(5000))


def test_private_weights_are_never_near_zero_and_have_both_signs():
    weights = private_weights(2000, 0.1, 0.5)
    assert np.all((np.abs(weights) >= 0.1) & (np.abs(weights) < 0.5))
    assert 800 < np.count_nonzero(weights > 0) < 1200
    assert np.unique(weights).size == 2000
