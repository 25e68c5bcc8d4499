"""Figures of a binary score on labelled rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class EvaluationError(ValueError):
    """The figures do not exist for these rows; the text says why."""


def binary_figures(label: Floats, score: Floats, threshold: float = 0.5) -> dict[str, float]:
    """AUC, KS, log loss (nats), and at `threshold` accuracy, precision, recall and F1 of label 1.

    `label` holds 0 and 1, both at least once; `score` is the probability of 1. Precision is 0 where nothing is above
    the threshold. Raises EvaluationError.
    """
    from sklearn import metrics  # noqa: PLC0415 - slow to load

    if label.shape != score.shape or set(np.unique(label)) != {0.0, 1.0}:
        raise EvaluationError("the label must hold both 0 and 1 and nothing else, one for every score")
    if not np.all((score >= 0) & (score <= 1)):
        raise EvaluationError("scores must be probabilities")
    false_rate, true_rate, _ = metrics.roc_curve(label, score)
    chosen = (score >= threshold).astype(np.float64)
    return {
        "auc": float(metrics.roc_auc_score(label, score)),
        "ks": float(np.max(true_rate - false_rate)),
        "log_loss": float(metrics.log_loss(label, score)),
        "accuracy": float(metrics.accuracy_score(label, chosen)),
        "precision": float(metrics.precision_score(label, chosen, zero_division=0)),
        "recall": float(metrics.recall_score(label, chosen, zero_division=0)),
        "f1": float(metrics.f1_score(label, chosen, zero_division=0)),
    }
