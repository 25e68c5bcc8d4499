from __future__ import annotations

import itertools
import random
import statistics

import pytest

from bench.load.arrivals import Arrivals, constant, poisson, share


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert list(itertools.islice(constant(4.0), 5)) == [0, 0.25, 0.5, 0.75, 1.0]


def test_processes_of_a_constant_stream_interleave() -> None:
    streams = [itertools.islice(share(Arrivals.CONSTANT, 10.0, index, 4, 0), 5) for index in range(4)]
    merged = sorted(itertools.chain(*streams))
    assert merged == pytest.approx([number / 10 for number in range(20)])


def test_poisson_pauses_have_the_mean_and_the_spread_of_an_exponential() -> None:
    due = list(itertools.islice(poisson(50.0, random.Random(1)), 20_000))
    pauses = [after - before for before, after in itertools.pairwise(due)]
    assert statistics.mean(pauses) == pytest.approx(0.02, rel=0.03)
    assert statistics.stdev(pauses) == pytest.approx(0.02, rel=0.03)


def test_processes_of_a_poisson_stream_differ_and_repeat() -> None:
    first, second, again = (
        list(itertools.islice(share(Arrivals.POISSON, 10.0, index, 2, 7), 5)) for index in (0, 1, 0)
    )
    assert first == again
    assert first != second
