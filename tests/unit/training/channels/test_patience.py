"""When to try again, on a clock that the test moves."""

from training.channels.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_pauses_double_up_to_the_longest() -> None:
    patience = Patience(1000, Clock())
    pauses = [patience.pause_s() for _ in range(8)]
    assert pauses[:4] == [FIRST_PAUSE_S * factor for factor in (1, 2, 4, 8)]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_it_gives_up_after_the_limit_since_the_first_failure() -> None:
    clock = Clock()
    patience = Patience(10, clock)
    assert patience.pause_s() is not None
    clock.now_s += 9.99
    assert 0 < patience.pause_s() <= 0.011
    clock.now_s += 0.02
    assert patience.pause_s() is None


def test_a_success_starts_anew() -> None:
    clock = Clock()
    patience = Patience(10, clock)
    patience.pause_s()
    clock.now_s += 9
    patience.succeeded()
    clock.now_s += 9
    assert patience.pause_s() == FIRST_PAUSE_S
