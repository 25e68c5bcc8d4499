from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.histogram import BOUNDS_S, Histogram


@given(st.lists(st.floats(0, 20)))
def test_every_value_is_counted_under_every_bound_it_is_not_above(values):
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    counted = dict(histogram.cumulative())
    for bound in BOUNDS_S:
        assert counted[str(bound)] == sum(value <= bound for value in values)
    assert counted["+Inf"] == len(values)
    assert abs(histogram.sum - sum(values)) < 1e-9


def test_bounds_rise():
    assert [bisect_left(BOUNDS_S, bound) for bound in BOUNDS_S] == list(range(len(BOUNDS_S)))
