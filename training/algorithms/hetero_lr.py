"""Logistic regression whose columns lie with several parties: the update rule, without networking.

Every party runs the same rule on its own weights: gradient descent with Nesterov's momentum (Nesterov 1983). Given the
sums of residuals times columns, no step needs a number of another party. One half that holds all columns and the
intercept is plain logistic regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

LARGEST_MOMENTUM = 0.9
SETTLED_EPOCHS = 3


@dataclass(frozen=True, slots=True)
class Descent:
    """`rate` multiplies the gradient; `l2` multiplies half the squared weights, not the intercept."""

    rate: float
    l2: float = 0.01


def stable_rate(features: Floats, l2: float, parties: int, *, intercept: bool) -> float:
    """The largest rate that cannot diverge, from this party's columns alone.

    The second derivative of the log loss is at most X^T X / 4 per row (Boehning, Lindsay 1988), and that of all
    parties together at most `parties` times its diagonal blocks.
    """
    gram = features.T @ features
    if intercept:
        sums = features.sum(axis=0)
        gram = np.block([[gram, sums[:, None]], [sums[None, :], np.array([[len(features)]])]])
    largest = float(np.linalg.eigvalsh(gram)[-1]) / len(features)
    curvature = parties * largest / 4 + l2
    return 1 / curvature if curvature > 0 else 1.0


class LinearHalf:
    """One party's weights (columns,), its intercept if it has one, and the momentum of both."""

    def __init__(self, weights: Floats, descent: Descent, intercept: float | None = None) -> None:
        self._columns = weights.size
        tail = [] if intercept is None else [intercept]
        self._values = np.concatenate([weights, tail]).astype(np.float64)
        self._decay = np.concatenate([np.full(weights.size, descent.l2), np.zeros(len(tail))])
        self._rate = descent.rate
        self._velocity = np.zeros_like(self._values)
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
        momentum = min(LARGEST_MOMENTUM, self._steps / (self._steps + 3))
        self._steps += 1
        self._velocity = momentum * self._velocity + gradient
        self._values -= self._rate * (gradient + momentum * self._velocity)


class Convergence:
    """Says when the loss has settled: three times in a row it moved by less than `tolerance`. Once is no proof, since
    momentum carries the loss through turning points."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._last = np.inf
        self._settled = 0

    def reached(self, loss: float) -> bool:
        self._settled = self._settled + 1 if abs(self._last - loss) < self._tolerance else 0
        self._last = loss
        return self._settled >= SETTLED_EPOCHS


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
