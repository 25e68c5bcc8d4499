import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from training.evaluation import EvaluationError, binary_figures

ROWS = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1)))


@given(ROWS, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_figures_are_those_of_scikit_learn(rows: list[tuple[float, float]], threshold: float) -> None:
    label, score = map(np.array, zip(*rows, (0.0, 0.5), (1.0, 0.5), strict=True))
    chosen = score >= threshold
    assert binary_figures(label, score, threshold) == pytest.approx(
        {
            "auc": metrics.roc_auc_score(label, score),
            "ks": max(np.subtract(*metrics.roc_curve(label, score)[1::-1])),
            "log_loss": metrics.log_loss(label, score),
            "accuracy": metrics.accuracy_score(label, chosen),
            "precision": metrics.precision_score(label, chosen, zero_division=0),
            "recall": metrics.recall_score(label, chosen),
            "f1": metrics.f1_score(label, chosen),
        }
    )


def test_ks_is_the_largest_distance_of_the_two_distributions() -> None:
    rng = np.random.default_rng(3)
    label = (rng.random(400) < 0.3).astype(float)
    score = np.clip(0.3 * label + 0.7 * rng.random(400), 0, 1)
    cuts = np.unique(score)
    wanted = max(abs((score[label == 1] <= cut).mean() - (score[label == 0] <= cut).mean()) for cut in cuts)
    assert binary_figures(label, score)["ks"] == pytest.approx(wanted)


def test_auc_counts_pairs_in_the_right_order() -> None:
    label, score = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.5, 0.5, 0.9])
    assert binary_figures(label, score)["auc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_nothing_above_the_threshold() -> None:
    figures = binary_figures(np.array([0.0, 1]), np.array([0.1, 0.2]), 0.9)
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0, 0, 0)


def test_as_many_scores_as_labels() -> None:
    with pytest.raises(EvaluationError, match="one for every score"):
        binary_figures(np.array([0.0, 1]), np.array([0.5]))
