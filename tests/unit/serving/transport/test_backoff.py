"""Pauses between attempts to connect, on a clock that ticks when told."""

import pytest

from serving.transport.backoff import Backoff


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pauses(backoff, count):
    found = []
    for _ in range(count):
        backoff.failed()
        found.append(backoff.left_s())
    return found


def test_pauses_grow_to_a_bound():
    found = pauses(Backoff(2.0, Clock(), lambda low, high: 1.0), 10)
    assert found[:3] == pytest.approx([0.1, 0.16, 0.256])
    assert found[-2:] == [2.0, 2.0]


@pytest.mark.parametrize("edge", [0, 1])
def test_jitter_is_a_fifth_either_way_and_never_passes_the_bound(edge):
    backoff = Backoff(2.0, Clock(), lambda low, high: (low, high)[edge])
    assert pauses(backoff, 1) == pytest.approx([(0.08, 0.12)[edge]])
    assert max(pauses(backoff, 20)) <= 2.0


def test_pauses_differ_between_clients():
    assert len({tuple(pauses(Backoff(2.0, Clock()), 3)) for _ in range(20)}) > 1


def test_a_pause_passes_and_success_forgets_failures():
    clock = Clock()
    backoff = Backoff(2.0, clock, lambda low, high: 1.0)
    assert backoff.left_s() == 0
    pauses(backoff, 5)
    clock.now += 10
    assert backoff.left_s() == 0
    backoff.succeeded()
    assert pauses(backoff, 1) == pytest.approx([0.1])


def test_a_small_bound_holds_from_the_first_pause():
    assert pauses(Backoff(0.05, Clock()), 3)[0] <= 0.05
