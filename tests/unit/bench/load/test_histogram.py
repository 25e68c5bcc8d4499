from __future__ import annotations

import random

import pytest

from bench.load.histogram import Latencies


def test_percentiles_are_those_of_the_sorted_values() -> None:
    source = random.Random(2)
    values = sorted(source.lognormvariate(-6, 1) for _ in range(10_000))
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    told = latencies.percentiles()
    for figure, share in ((told.p50, 0.5), (told.p90, 0.9), (told.p99, 0.99), (told.p99_9, 0.999)):
        assert figure == pytest.approx(values[int(share * 10_000) - 1] * 1e3, rel=2e-3)
    assert told.max == pytest.approx(values[-1] * 1e3, rel=2e-3)


def test_what_no_histogram_holds_is_clipped() -> None:
    latencies = Latencies()
    for value in (-0.001, 0.0, 1e6):
        latencies.record(value)
    assert len(latencies) == 3
    assert latencies.at(50) == pytest.approx(0.001, rel=0.1)
    assert latencies.at(100) == pytest.approx(3.6e6, rel=2e-3)
