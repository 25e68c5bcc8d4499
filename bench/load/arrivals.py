"""When calls are due, in seconds from the start of a run: endless, rising."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from enum import Enum


class Arrivals(Enum):
    """How the intended send times of an open loop are spaced."""

    CONSTANT = "constant"
    POISSON = "poisson"


def constant(rate_per_s: float, first: float = 0.0) -> Iterator[float]:
    """Evenly spaced. `first` counts in intervals; it shifts one of several generators against the others."""
    return ((first + number) / rate_per_s for number in itertools.count())


def poisson(rate_per_s: float, source: random.Random) -> Iterator[float]:
    """Independent calls: exponential pauses. The sum of several such streams is one again, of the summed rate."""
    due = 0.0
    while True:
        due += source.expovariate(rate_per_s)
        yield due


def share(kind: Arrivals, rate_per_s: float, index: int, of: int, seed: int) -> Iterator[float]:
    """The part of one process, the `index`-th of `of`, in a stream of `rate_per_s` over all of them."""
    if kind is Arrivals.CONSTANT:
        return constant(rate_per_s / of, index / of)
    return poisson(rate_per_s / of, random.Random(f"{seed}/{index}"))
