"""Logistic regression whose columns lie with several parties: the update rule, without networking.

Every party runs the same rule on its own weights. Given the sums of residuals times columns, no step needs a number of
another party: Adam (Kingma, Ba 2015) scales each weight by its own history. One half that holds all columns and the
intercept is plain logistic regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

GRADIENT_MEMORY = 0.9
SQUARE_MEMORY = 0.999
TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Descent:
    """`learning_rate` is the largest first step of a weight; `l2` multiplies half the squared weights, not the
    intercept."""

    learning_rate: float = 0.1
    l2: float = 0.01


class LinearHalf:
    """One party's weights (columns,), its intercept if it has one, and the optimiser's memory of both."""

    def __init__(self, weights: Floats, descent: Descent, intercept: float | None = None) -> None:
        self._columns = weights.size
        tail = [] if intercept is None else [intercept]
        self._values = np.concatenate([weights, tail]).astype(np.float64)
        self._decay = np.concatenate([np.full(weights.size, descent.l2), np.zeros(len(tail))])
        self._rate = descent.learning_rate
        self._gradient = np.zeros_like(self._values)
        self._square = np.zeros_like(self._values)
        self._steps = 0

    @property
    def weights(self) -> Floats:
        return self._values[: self._columns].copy()

    @property
    def intercept(self) -> float | None:
        return float(self._values[-1]) if self._values.size > self._columns else None

    def predictor(self, features: Floats) -> Floats:
        """This half's share of the linear predictor, (rows,)."""
        linear: Floats = features @ self._values[: self._columns]
        return linear if self.intercept is None else linear + self.intercept

    def update(self, column_sums: Floats, residual_sum: float, rows: int) -> None:
        """One step. `column_sums` is X^T d over the batch's `rows`; `residual_sum` serves the intercept only."""
        tail = [] if self.intercept is None else [residual_sum]
        gradient = np.concatenate([column_sums, tail]) / rows + self._decay * self._values
        self._steps += 1
        self._gradient += (1 - GRADIENT_MEMORY) * (gradient - self._gradient)
        self._square += (1 - SQUARE_MEMORY) * (gradient**2 - self._square)
        mean = self._gradient / (1 - GRADIENT_MEMORY**self._steps)
        spread = np.sqrt(self._square / (1 - SQUARE_MEMORY**self._steps))
        self._values -= self._rate * mean / (spread + TINY)


class Convergence:
    """Says when the loss has settled: it differs from the one before by less than `tolerance`."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._last = np.inf

    def reached(self, loss: float) -> bool:
        settled = abs(self._last - loss) < self._tolerance
        self._last = loss
        return settled


def probability(predictor: Floats) -> Floats:
    """1 / (1 + e^-z) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * predictor))


def residual(predictor: Floats, label: Floats) -> Floats:
    """Derivative of the log loss by the predictor: probability minus label, within [-1, 1]."""
    return probability(predictor) - label


def log_loss_sum(predictor: Floats, label: Floats) -> float:
    """Negative log likelihood in nats, summed over rows."""
    return float(np.sum(np.logaddexp(0.0, predictor) - label * predictor))


def batch_plan(rows: int, batch_rows: int, seed: int) -> list[Rows]:
    """Row numbers of each batch, the same on every party, fixed for the job.

    Every row is in exactly one batch. No batch is smaller than `batch_rows` unless all rows together are: a short
    rest would tell more about its rows than the safeguards allow.
    """
    order = np.random.default_rng(seed).permutation(rows)
    return [np.sort(part) for part in np.array_split(order, max(1, rows // batch_rows))]


def safe_batch_rows(host_columns: int) -> int:
    """The least rows in a batch. A host gets one equation per column and step about the residuals of the batch; with
    as many columns as rows it solves for each residual, whose sign is the label."""
    return max(256, 10 * host_columns)
