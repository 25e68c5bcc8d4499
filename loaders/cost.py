"""How long a servable takes, measured once after it was loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np

from loaders.loader import Servable
from loaders.signature import Batch, FeatureError, Signature

_SIZES = (1, 16, 256)
_ENOUGH_S = 0.02
"""Larger batches are not tried once one took so long; they are taken to cost in proportion."""
_TRIALS = 3


class Cost(msgspec.Struct, frozen=True):
    """Seconds for the batch sizes that were tried, both rising; () for a servable that was not measured."""

    rows: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()

    def of(self, rows: int) -> float:
        """Of a batch, between and beyond what was tried in proportion."""
        if not self.rows:
            return 0.0
        if rows > self.rows[-1]:
            return self.seconds[-1] * rows / self.rows[-1]
        return float(np.interp(rows, self.rows, self.seconds))

    def most(self, seconds: float, limit: int) -> int:
        """The largest batch up to `limit` that takes no longer; at least 1."""
        low, high = 1, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.of(middle) <= seconds else (low, middle - 1)
        return low


def measured(servable: Servable, clock: Callable[[], float] = time.perf_counter) -> Cost:
    """By rows that lie in the inputs' ranges. A servable that takes no such rows is not measured. Slow."""
    rows: list[int] = []
    seconds: list[float] = []
    for size in _SIZES:
        try:
            took = min(_timed(servable, _rows(servable.signature, size), clock) for _ in range(_TRIALS))
        except FeatureError:
            return Cost()
        rows.append(size)
        seconds.append(max(took, seconds[-1] if seconds else 0.0))
        if took > _ENOUGH_S:
            break
    return Cost(tuple(rows), tuple(seconds))


def _timed(servable: Servable, batch: Batch, clock: Callable[[], float]) -> float:
    began = clock()
    servable.predict(batch)
    return clock() - began


def _rows(signature: Signature, size: int) -> Batch:
    middles = [
        0.0 if spec.range is None else sum(spec.range) / 2
        for spec in signature.inputs
        if not spec.is_text
        for _ in spec.feature_names()
    ]
    return Batch(np.tile(np.array(middles), (size, 1)), np.full((size, len(signature.texts)), "", dtype=np.object_))
