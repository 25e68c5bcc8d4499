"""The compiled linear half: imputation and scaling folded into one multiply-and-add over the raw features."""

from __future__ import annotations

import numpy as np

from loaders.loader import Outputs, Servable
from loaders.servables.preprocess import Steps
from loaders.signature import Batch, FeatureError, Numbers, Signature, all_finite


class LinearServable(Servable):
    """`weights` (features, width) over the preprocessed features, `intercept` (width,).

    Scaling is folded: w' = w / scale, b' = b - sum(w * mean / scale). The sum runs along each row by itself, so a row
    gives the same bits alone and in a batch (a BLAS product does not promise that). Raises OverflowError when the
    folded weights are not finite.
    """

    def __init__(self, signature: Signature, steps: Steps, weights: Numbers, intercept: Numbers) -> None:
        self.signature = signature
        with np.errstate(over="ignore", invalid="ignore"):
            self._weights = np.ascontiguousarray((weights / steps.scale[:, None]).T)
            self._bias = intercept - self._weights @ steps.mean
        if not (np.isfinite(self._weights).all() and np.isfinite(self._bias).all()):
            raise OverflowError("weights divided by scales are not finite")
        self._fill = steps.fill
        self._output = signature.outputs[0].name

    def predict(self, batch: Batch) -> Outputs:
        with np.errstate(over="ignore", invalid="ignore"):
            partial = self._partial(batch.numbers)
            # A missing value shows in the result; looking for it before would cost as much.
            if not all_finite(partial):
                partial = self._partial(np.where(np.isnan(batch.numbers), self._fill, batch.numbers))
                if not all_finite(partial):
                    raise FeatureError("the features give no finite result: one is missing or far too large")
        return {self._output: partial}

    def _partial(self, numbers: Numbers) -> Numbers:
        # Row by row in memory, however `numbers` lies there: the order of addition decides the last bits.
        products = np.multiply(numbers[:, None, :], self._weights, order="C")
        partial: Numbers = np.add.reduce(products, axis=2) + self._bias
        return partial


LOG_OF_0 = -1e300
"""A number, and so small that e to it is 0 whatever is added."""


class Exposed(Servable):
    """A linear half whose last column is an exposure: its logarithm is added, so that the expectation is multiplied."""

    def __init__(self, signature: Signature, linear: Servable, name: str) -> None:
        self.signature = signature
        self._linear = linear
        self._name = name
        self._output = signature.outputs[0].name

    def predict(self, batch: Batch) -> Outputs:
        exposure = batch.numbers[:, -1]
        if not (exposure >= 0).all() or np.isinf(exposure).any():
            raise FeatureError(f"feature {self._name!r} is an exposure: it must be a number from 0 on")
        partial = self._linear.predict(Batch(batch.numbers[:, :-1], batch.texts))[self._output]
        logarithm = np.where(exposure > 0, np.log(np.where(exposure > 0, exposure, 1.0)), LOG_OF_0)
        return {self._output: partial + logarithm[:, None]}
