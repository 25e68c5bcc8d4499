"""Factorisation machines: the half's own score, and the sums of its factors for the products with other halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loaders.loader import Outputs, Partial, Scores, Servable
from loaders.signature import Batch, FeatureError, Numbers, Signature


class FactorServable(Servable):
    """`weights` (features,), `factors` (features, rank). Partials are (rows, 1 + rank): the score of the half by
    itself, then c_k = sum of v_k x. The products between halves are sum over k of c_k c'_k."""

    def __init__(self, signature: Signature, weights: Numbers, factors: Numbers, intercept: float) -> None:
        self.signature = signature
        self._weights = weights
        self._factors = np.ascontiguousarray(factors.T)
        self._intercept = intercept
        self._output = signature.outputs[0].name

    @property
    def score_width(self) -> int:
        return 1

    def predict(self, batch: Batch) -> Outputs:
        numbers = batch.numbers
        with np.errstate(over="ignore", invalid="ignore"):
            products = numbers[:, None, :] * self._factors
            sums = np.add.reduce(products, axis=2)
            squares = np.add.reduce(np.square(products), axis=2)
            linear = np.add.reduce(numbers * self._weights, axis=1) + self._intercept
            own = linear + 0.5 * np.add.reduce(np.square(sums) - squares, axis=1)
            partial = np.concatenate([own[:, None], sums], axis=1)
        if not np.isfinite(partial).all():
            raise FeatureError("the features give no finite result: one is missing or far too large")
        return {self._output: partial}

    def combine(self, partials: Sequence[Partial]) -> Scores:
        total = partials[0][:, 0].copy()
        for place, partial in enumerate(partials[1:], start=1):
            total += partial[:, 0]
            for other in partials[:place]:
                total += np.add.reduce(partial[:, 1:] * other[:, 1:], axis=1)
        return total[:, None]
