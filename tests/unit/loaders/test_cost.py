import numpy as np
import pytest

from loaders.cost import Cost, measured
from loaders.loader import Servable
from loaders.signature import FeatureError, Signature, TensorSpec
from tests.clock import Clock

SIGNATURE = Signature(
    (TensorSpec(name="a", dtype="float64", shape=(-1,), range=(2.0, 4.0)),),
    (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),),
)


class Taking(Servable):
    """Takes so long for each row, by the clock of the test."""

    def __init__(self, clock, row_s):
        self.signature = SIGNATURE
        self.clock = clock
        self.row_s = row_s
        self.seen = []

    def predict(self, batch):
        self.seen.append(batch)
        self.clock.tick(self.row_s * batch.rows)
        return {"score": np.zeros((batch.rows, 1))}


def test_it_is_measured_at_several_sizes_by_rows_within_the_ranges():
    servable = Taking(clock := Clock(), 1e-5)
    cost = measured(servable, clock)
    assert cost.rows == (1, 16, 256)
    assert cost.seconds == pytest.approx((1e-5, 16e-5, 256e-5))
    assert {float(value) for batch in servable.seen for value in batch.numbers.ravel()} == {3.0}


def test_a_slow_one_is_not_tried_with_many_rows():
    servable = Taking(clock := Clock(), 0.05)
    cost = measured(servable, clock)
    assert cost.rows == (1,)
    assert cost.of(100) == pytest.approx(5.0)


def test_between_sizes_it_is_in_proportion():
    cost = Cost((1, 11), (0.001, 0.002))
    assert cost.of(6) == pytest.approx(0.0015)
    assert cost.of(22) == pytest.approx(0.004)


def test_the_largest_batch_that_takes_no_longer():
    cost = Cost((1, 11), (0.001, 0.002))
    assert cost.most(0.0015, 256) == 6
    assert cost.most(0.0001, 256) == 1
    assert cost.most(1.0, 256) == 256


def test_what_was_not_measured_costs_nothing():
    assert Cost().of(1_000) == 0.0
    assert Cost().most(0.0, 256) == 256


def test_a_servable_that_refuses_such_rows_is_not_measured():
    class Refusing(Taking):
        def predict(self, batch):
            raise FeatureError("a is an exposure")

    assert measured(Refusing(Clock(), 0.0)) == Cost()
