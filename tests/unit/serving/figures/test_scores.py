from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from serving.figures import scores
from serving.figures.scores import BINS, EDGES


def histogram(values: np.ndarray) -> np.ndarray:
    return np.bincount(scores.bins_of(values), minlength=BINS)


def test_a_thousand_bins_whose_edges_rise() -> None:
    assert len(EDGES) == BINS - 1
    assert (np.diff(EDGES) > 0).all()


@given(st.floats(allow_nan=False))
def test_one_and_many_scores_meet_the_same_bin(score: float) -> None:
    place = scores.bin_of(score)
    assert place == scores.bins_of(np.array([score]))[0]
    assert 0 <= place < BINS
    assert place == 0 or EDGES[place - 1] <= score
    assert place == BINS - 1 or score < EDGES[place]


SCALES = {
    "probabilities": lambda logits: 1 / (1 + np.exp(-logits)),
    "rare": lambda logits: 1 / (1 + np.exp(5 - logits)),
    "log-odds": lambda logits: logits,
    "points": lambda logits: 600 + 50 * logits,
}


@pytest.mark.parametrize("scale", SCALES)
@given(st.integers(0, 2**32), st.floats(0.01, 0.99), st.floats(0, 3), st.integers(2, 400))
def test_auc_is_that_of_the_scores_within_the_binning_error(
    scale: str, seed: int, share: float, apart: float, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < share
    labels[:2] = [True, False]
    exact = SCALES[scale](rng.normal(size=rows) + apart * labels)
    positives, negatives = histogram(exact[labels]), histogram(exact[~labels])
    error = scores.binning_error(positives, negatives)
    found = scores.auc(positives, negatives)
    assert found is not None
    assert abs(found - roc_auc_score(labels, exact)) <= error + 1e-12


@pytest.mark.parametrize("scale", SCALES)
def test_the_binning_error_is_small_on_every_usual_scale(scale: str) -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(50_000) < 0.3
    exact = SCALES[scale](rng.normal(size=50_000) + labels)
    positives, negatives = histogram(exact[labels]), histogram(exact[~labels])
    assert scores.binning_error(positives, negatives) < 0.025
    assert abs((scores.auc(positives, negatives) or 0) - roc_auc_score(labels, exact)) < 0.001


def test_ks_is_the_largest_gap() -> None:
    positives, negatives = histogram(np.array([0.6, 0.7, 0.8, 0.9])), histogram(np.array([0.1, 0.2, 0.65, 0.3]))
    assert scores.ks(positives, negatives) == pytest.approx(0.75)


def test_without_both_labels_there_is_nothing_to_say() -> None:
    some, none = histogram(np.array([0.5])), histogram(np.array([]))
    assert scores.auc(some, none) is scores.auc(none, some) is scores.ks(some, none) is None
    assert scores.quantile(none, 0.5) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.sampled_from([0.05, 0.5, 0.95]))
def test_quantiles_are_in_the_bin_of_the_exact_one(values: list[float], share: float) -> None:
    exact = np.quantile(values, share, method="inverted_cdf")
    found = scores.quantile(histogram(np.array(values)), share)
    assert found is not None
    place = scores.bin_of(float(exact))
    assert EDGES[place - 1] <= found <= EDGES[place]
