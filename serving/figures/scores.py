"""Score histograms of 1 000 fixed bins, and what they tell: AUC, KS, quantiles.

The bins are the same everywhere, so that histograms of replicas, workers and days can be summed. They are fine where
scores usually are: probabilities (finer still near 0 and 1), log-odds, and the points of scorecards.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import numpy.typing as npt

BINS = 1_000

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def _edges() -> Scores:
    logits = 1 / (1 + np.exp(-np.linspace(-11, 11, 200)))
    parts = (
        -(10.0 ** np.linspace(6, 0.06, 100)),  # -1 000 000 to -1
        np.arange(-100, 0) / 100,  # -1 to 0
        np.sort(np.concatenate([np.arange(300) / 300, logits])),  # probabilities
        1 + np.arange(95) / 5,  # 1 to 20
        20 + np.arange(164) * 980 / 164,  # points, to 1 000
        10.0 ** (3 + 3 * np.arange(40) / 40),  # to 1 000 000
    )
    return np.concatenate(parts)


EDGES = _edges()
"""Bin i holds scores from edge i - 1 (included) to edge i; the first and the last bin have no outer edge."""
_LIST: list[float] = EDGES.tolist()


def bin_of(score: float) -> int:
    return bisect_right(_LIST, score)


def bins_of(scores: Scores) -> npt.NDArray[np.intp]:
    return np.searchsorted(EDGES, scores, side="right")


def auc(positives: Counts, negatives: Counts) -> float | None:
    """The probability that a positive scores above a negative, ties within a bin counted half; None without both."""
    pairs = int(positives.sum()) * int(negatives.sum())
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / pairs)


def binning_error(positives: Counts, negatives: Counts) -> float:
    """How far `auc` can be from that of the scores themselves: half the share of pairs that share a bin."""
    pairs = int(positives.sum()) * int(negatives.sum())
    return float((positives * negatives).sum() / (2 * pairs)) if pairs else 0.0


def ks(positives: Counts, negatives: Counts) -> float | None:
    """Kolmogorov and Smirnov's distance: the largest gap between the two distribution functions at the bins' edges."""
    if not positives.sum() or not negatives.sum():
        return None
    gaps = np.cumsum(positives) / positives.sum() - np.cumsum(negatives) / negatives.sum()
    return float(np.abs(gaps).max())


def quantile(counts: Counts, share: float) -> float | None:
    """The score below which this share lies, interpolated within its bin."""
    total = int(counts.sum())
    if not total:
        return None
    cumulative = np.cumsum(counts)
    place = int(np.searchsorted(cumulative, share * total, side="left"))
    low, high = _LIST[max(place - 1, 0)], _LIST[min(place, len(_LIST) - 1)]
    inside = (share * total - (cumulative[place] - counts[place])) / max(int(counts[place]), 1)
    return low + (high - low) * float(inside)
