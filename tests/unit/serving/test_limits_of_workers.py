"""Limits that the workers of a node keep to together: their limiters in this process, on one memory."""

from contextlib import contextmanager
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.control import State, WantedLimit
from serving.errors import LimitError
from serving.limits import Limiter, leave
from serving.settings import Limits, RateLimit
from serving.shared_counts import Pair, Seats, SharedCounts
from tests.clock import Clock


class Workers:
    """Limiters that count together, each as the worker of a process of its own."""

    def __init__(self, workers, clock=None, seats=8, **limits):
        self.clock = clock or Clock()
        self.seats = Seats(seats)
        self._limits = Limits(**limits)
        self.taken = [None] * workers
        self.limiters = [None] * workers
        for number in range(workers):
            self.start(number)

    def start(self, number):
        seat = self.seats.take()
        self.taken[number] = seat
        self.limiters[number] = Limiter(self._limits, self.clock, counts=SharedCounts(seat))

    def kill(self, number):
        """Its supervisor starts another one."""
        self.seats.leave(self.taken[number])
        self.start(number)

    def replace(self, number):
        """The old one drains while the new one serves; returns its limiter and how to end it."""
        seat, old = self.taken[number], self.limiters[number]
        self.start(number)
        return old, lambda: self.seats.leave(seat)


@contextmanager
def workers(*arguments, **options):
    made = Workers(*arguments, **options)
    try:
        yield made
    finally:
        made.seats.close()


def passes(ask, *arguments):
    try:
        ask(*arguments)
    except LimitError:
        return False
    return True


def enter(limiter, running):
    running.append(limiter.enter("s", ""))


def test_workers_share_a_rate():
    with workers(3, services={"s": RateLimit(per_s=2, burst=6)}) as made:
        one, two, three = made.limiters
        for each in made.limiters * 2:
            each.take("s", "", 1)
        for each in made.limiters:
            with pytest.raises(LimitError) as refused:
                each.take("s", "", 1)
            assert refused.value.retry_after_s == pytest.approx(0.5)
        made.clock.tick(0.5)
        two.take("s", "", 1)
        assert not passes(one.take, "s", "", 1)
        made.clock.tick(100)
        three.take("s", "", 6)
        assert not passes(one.take, "s", "", 1)


def test_workers_share_calls_at_once():
    with workers(3, callers={"default": RateLimit(concurrent=3)}) as made:
        one, two, three = made.limiters
        running = [each.enter("s", "a") for each in made.limiters]
        assert not any(passes(each.enter, "s", "a") for each in made.limiters)
        leave(two.enter("s", "b"))
        leave(running.pop(0))
        running.append(three.enter("s", "a"))
        assert not passes(one.enter, "s", "a")
        for gates in running:
            leave(gates)
        running = [one.enter("s", "a") for _ in range(3)]
        assert not passes(two.enter, "s", "a")


def test_a_worker_that_is_killed_leaves_what_it_took_and_no_calls_behind():
    limit = RateLimit(per_s=1, burst=4, concurrent=2)
    with workers(2, services={"s": limit}) as made:
        made.limiters[0].take("s", "", 3)
        for _ in range(2):
            made.limiters[0].enter("s", "")
        assert not passes(made.limiters[1].enter, "s", "")
        made.kill(0)
        for each in made.limiters:
            each.enter("s", "")
        assert not passes(made.limiters[1].enter, "s", "")
        assert passes(made.limiters[1].take, "s", "", 1)
        assert not passes(made.limiters[0].take, "s", "", 1)


def test_while_workers_are_replaced_old_and_new_count_together():
    with workers(2, services={"s": RateLimit(per_s=1, burst=3, concurrent=2)}) as made:
        old, end = made.replace(0)
        new, other = made.limiters
        running = [old.enter("s", ""), new.enter("s", "")]
        assert not passes(other.enter, "s", "")
        for each in (old, new, other):
            each.take("s", "", 1)
        assert not any(passes(each.take, "s", "", 1) for each in (old, new, other))
        leave(running.pop(0))
        end()
        other.enter("s", "")
        assert not passes(new.enter, "s", "")
        assert not passes(new.take, "s", "", 1)


def test_a_limit_that_changes_keeps_the_calls_of_all_workers():
    with workers(2, services={"s": RateLimit(concurrent=2, per_s=9)}) as made:
        running = [each.enter("s", "") for each in made.limiters]
        for each in made.limiters:
            each.follow(State(limits={"service": {"s": WantedLimit(concurrent=3, per_s=1)}}))
        running.append(made.limiters[0].enter("s", ""))
        assert not any(passes(each.enter, "s", "") for each in made.limiters)
        made.limiters[0].take("s", "", 1)
        assert not passes(made.limiters[1].take, "s", "", 1)
        for gates in running:
            leave(gates)
        assert [len(each.enter("s", "")) for each in made.limiters] == [1, 1]


def test_a_name_that_is_forgotten_is_not_counted_any_more(monkeypatch):
    monkeypatch.setattr("serving.limits.MAX_NAMES", 2)
    with workers(2, callers={"default": RateLimit(concurrent=1, per_s=1)}) as made:
        one, two = made.limiters
        held = one.enter("", "a")
        for name in ("b", "c"):
            one.take("", name, 1)
        running = one.enter("", "a")
        leave(held)
        assert not passes(two.enter, "", "a"), "what was forgotten writes nothing more"
        leave(running)
        leave(two.enter("", "a"))


def test_a_rate_that_changes_and_comes_back_begins_anew_too():
    other = State(limits={"service": {"s": WantedLimit(per_s=3)}})
    with workers(2, services={"s": RateLimit(per_s=2)}) as made:
        made.limiters[0].take("s", "", 2)
        for state in (other, State()):
            for each in made.limiters:
                each.follow(state)
        made.limiters[1].take("s", "", 2)
        assert not any(passes(each.take, "s", "", 1) for each in made.limiters)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "enter", "enter", "leave", "kill"]),
        st.integers(0, 2),
        st.integers(0, 32),
        st.integers(1, 20),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 16), st.integers(1, 40), st.integers(1, 4))
def test_workers_let_in_what_one_would(steps, per_s, burst, concurrent):
    """Whatever comes to whom, and whoever is killed. Sixteenths of seconds are exact."""
    limit = RateLimit(per_s=per_s, burst=burst, concurrent=concurrent)
    with workers(3, services={"s": limit}) as made:
        alone = Limiter(Limits(services={"s": limit}), made.clock)
        running = [[], [], []]
        for what, worker, sixteenths, rows in steps:
            made.clock.tick(sixteenths / 16)
            limiter = made.limiters[worker]
            if what == "take":
                assert passes(limiter.take, "s", "", rows) == passes(alone.take, "s", "", rows)
            elif what == "enter":
                assert passes(enter, limiter, running[worker]) == passes(alone.enter, "s", "")
            elif what == "leave" and running[worker]:
                leave(running[worker].pop())
                alone._services.of("s").leave()
            elif what == "kill":
                made.kill(worker)
                for _ in range(len(running[worker])):
                    alone._services.of("s").leave()
                running[worker] = []
            assert sum(map(len, running)) <= concurrent


@given(
    st.lists(st.tuples(st.permutations(range(3)), st.integers(0, 16), st.integers(1, 20)), max_size=40),
    st.integers(1, 16),
    st.integers(1, 40),
    st.integers(1, 4),
)
def test_of_workers_that_look_at_the_same_moment_each_lets_in_one_call_too_many(steps, per_s, burst, concurrent):
    """Each looks at the others, and decides after the next one has looked and decided."""
    limit = RateLimit(per_s=per_s, burst=burst, concurrent=concurrent)
    look = Pair.of_others
    between = []

    def interrupted(pair):
        found = look(pair)
        if between:
            between.pop()()
        return found

    with workers(3, services={"s": limit}) as made, pytest.MonkeyPatch.context() as patched:
        patched.setattr(Pair, "of_others", interrupted)
        began, passed, running = made.clock(), 0, []

        def take(limiter, rows):
            nonlocal passed
            if passes(limiter.take, "s", "", rows):
                passed += rows

        for order, sixteenths, rows in steps:
            made.clock.tick(sixteenths / 16)
            first, *others = (made.limiters[number] for number in order)
            between[:] = [partial(take, limiter, rows) for limiter in others]
            take(first, rows)
            between[:] = [partial(passes, enter, limiter, running) for limiter in others]
            passes(enter, first, running)
            between.clear()
            assert passed <= burst + per_s * (made.clock() - began) + 3 * 20
            assert len(running) <= concurrent
