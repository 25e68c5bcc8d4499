"""Random values from the operating system's generator, for keys, masks and private starting points."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt


def uniform_below(bound: int, count: int) -> npt.NDArray[np.uint64]:
    """`count` integers, uniform in [0, bound) by rejection; `bound` <= 2^63."""
    mask = np.uint64((1 << (bound - 1).bit_length()) - 1)
    kept = np.empty(0, dtype=np.uint64)
    while kept.size < count:
        drawn = np.frombuffer(os.urandom(8 * (count - kept.size)), dtype="<u8") & mask
        kept = np.concatenate([kept, drawn[drawn < np.uint64(bound)]])
    return kept


def private_weights(count: int, smallest: float, largest: float) -> npt.NDArray[np.float64]:
    """`count` values with a uniform magnitude in [smallest, largest) and a fair sign: never zero if smallest > 0."""
    magnitude = smallest + (largest - smallest) * np.ldexp(uniform_below(1 << 53, count).astype(np.float64), -53)
    return np.where(uniform_below(2, count) == 0, magnitude, -magnitude)
