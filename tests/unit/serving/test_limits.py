from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import LimitError
from serving.limits import MAX_NAMES, Limiter, leave
from serving.settings import Limits, RateLimit
from tests.clock import Clock


@contextmanager
def entered(made, service, caller):
    gates = made.enter(service, caller)
    try:
        yield
    finally:
        leave(gates)


def limiter(clock=None, **limits):
    return Limiter(Limits(**limits), clock or Clock())


def test_a_rate_lets_the_burst_through_and_then_one_at_a_time():
    clock = Clock()
    made = limiter(clock, services={"s": RateLimit(per_s=10, burst=3)})
    for _ in range(3):
        made.take("s", "", 1)
    with pytest.raises(LimitError, match="service 's' is limited to 10 rows a second") as caught:
        made.take("s", "", 1)
    assert caught.value.retry_after_s == pytest.approx(0.1)
    clock.tick(0.1)
    made.take("s", "", 1)
    with pytest.raises(LimitError):
        made.take("s", "", 1)


def test_a_batch_beyond_the_burst_passes_and_is_paid_for():
    clock = Clock()
    made = limiter(clock, services={"s": RateLimit(per_s=100, burst=10)})
    made.take("s", "", 1000)
    with pytest.raises(LimitError) as caught:
        made.take("s", "", 1)
    assert caught.value.retry_after_s == pytest.approx(9.91)
    clock.tick(10)
    made.take("s", "", 1)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 50)), max_size=60), st.floats(1, 100), st.integers(1, 50))
def test_no_more_than_the_rate_allows(steps, per_s, burst):
    clock = Clock()
    made = limiter(clock, callers={"c": RateLimit(per_s=per_s, burst=burst)})
    began, passed, last = clock(), 0, 0
    for wait_s, rows in steps:
        clock.tick(wait_s)
        try:
            made.take("", "c", rows)
        except LimitError as error:
            assert error.retry_after_s > 0
            clock.tick(error.retry_after_s + 1e-9)
            made.take("", "c", rows)
        passed, last = passed + rows, rows
    assert passed - last <= burst + per_s * (clock() - began) + 1e-6


def test_calls_at_once_are_counted_until_they_end():
    made = limiter(callers={"default": RateLimit(concurrent=2)})
    with entered(made, "s", "a"), entered(made, "s", "a"):
        with pytest.raises(LimitError, match="caller 'a' is limited to 2 calls at once"), entered(made, "s", "a"):
            pass
        with entered(made, "s", "b"):
            pass
    with entered(made, "s", "a"):
        pass


def test_names_not_listed_are_counted_apart():
    made = limiter(callers={"default": RateLimit(per_s=1), "big": RateLimit(per_s=100)})
    made.take("", "a", 1)
    made.take("", "b", 1)
    for _ in range(100):
        made.take("", "big", 1)
    with pytest.raises(LimitError):
        made.take("", "a", 1)


def test_callers_who_do_not_say_who_they_are_count_as_one():
    made = limiter(callers={"default": RateLimit(per_s=1, concurrent=1)})
    made.take("s", "", 1)
    with pytest.raises(LimitError, match="caller 'anonymous' is limited to 1 rows a second"):
        made.take("t", "", 1)
    with entered(made, "s", ""):
        with (
            pytest.raises(LimitError, match="caller 'anonymous' is limited to 1 calls at once"),
            entered(made, "t", ""),
        ):
            pass
        with entered(made, "t", "a"):
            pass


def test_a_model_has_a_limit_of_its_own():
    made = limiter(models={"m": RateLimit(per_s=5, burst=1)})
    leave(made.enter_model("m", 1))
    with pytest.raises(LimitError, match="model 'm'"):
        made.enter_model("m", 1)
    made.enter_model("other", 1000)


def test_callers_cannot_fill_the_memory():
    made = limiter(callers={"default": RateLimit(per_s=1)})
    for number in range(MAX_NAMES + 10):
        made.take("", str(number), 1)
    assert len(made._callers._gates) == MAX_NAMES


def test_nothing_is_limited_unless_said():
    made = limiter()
    for _ in range(1000):
        made.take("s", "c", 1000)
    assert not made.enter("s", "c")
    assert not made.enter_model("m", 1000)
