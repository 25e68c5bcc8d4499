"""Figures of a binary score on labelled rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_LEAST = np.finfo(np.float64).eps
"""The log loss of a certainty that is wrong is large, not infinite."""


class EvaluationError(ValueError):
    """The figures do not exist for these rows; the text says why."""


def binary_figures(label: Floats, score: Floats, threshold: float = 0.5) -> dict[str, float]:
    """AUC, KS, log loss (nats), and at `threshold` accuracy, precision, recall and F1 of label 1.

    `label` holds 0 and 1, both at least once; `score` is the probability of 1. Precision is 0 where nothing is above
    the threshold. Raises EvaluationError.
    """
    if label.shape != score.shape or set(np.unique(label)) != {0.0, 1.0}:
        raise EvaluationError("the label must hold both 0 and 1 and nothing else, one for every score")
    if not np.all((score >= 0) & (score <= 1)):
        raise EvaluationError("scores must be probabilities")
    false_rate, true_rate = _roc(label, score)
    of_truth = np.clip(np.where(label == 1, score, 1 - score), _LEAST, 1 - _LEAST)
    return {
        "auc": float(np.trapezoid(true_rate, false_rate)),
        "ks": float(np.max(true_rate - false_rate)),
        "log_loss": float(-np.mean(np.log(of_truth))),
        **_decisions(label == 1, score >= threshold),
    }


def _roc(label: Floats, score: Floats) -> tuple[Floats, Floats]:
    """The curve's rates of false and of true positives, from none to all; rows of one score make one step."""
    order = np.argsort(-score)
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(label[order])[last]
    false = last + 1 - true
    return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def _decisions(truth: Flags, chosen: Flags) -> dict[str, float]:
    right = int(np.sum(truth & chosen))
    precision, recall = right / max(int(chosen.sum()), 1), right / int(truth.sum())
    return {
        "accuracy": float(np.mean(truth == chosen)),
        "precision": precision,
        "recall": recall,
        "f1": 2 * right / int(truth.sum() + chosen.sum()),
    }
