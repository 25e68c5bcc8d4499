from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.control import State, WantedLimit
from serving.errors import LimitError
from serving.limit_kind import LimitKind
from serving.limits import MAX_NAMES, Limiter, leave, make_limiter
from serving.settings import Limits, PeerSettings, RateLimit, Settings
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


def wanted(**limits):
    """A state with these limits: by kind, `name=limit` or no names."""
    return State(limits={kind: dict(named) for kind, named in limits.items()})


def refusal(ask, *arguments):
    with pytest.raises(LimitError) as refused:
        ask(*arguments)
    return str(refused.value)


def test_the_wanted_state_comes_before_the_settings_and_gives_way_to_them_again():
    clock = Clock()
    made = limiter(clock, services={"s": RateLimit(per_s=1), "t": RateLimit(per_s=1)})
    made.follow(wanted(service={"s": WantedLimit(per_s=3)}))
    made.take("s", "", 3)
    assert refusal(made.take, "s", "", 1) == "service 's' is limited to 3 rows a second"
    made.take("t", "", 1)
    assert refusal(made.take, "t", "", 1) == "service 't' is limited to 1 rows a second"
    made.follow(State())
    made.take("s", "", 1)
    assert refusal(made.take, "s", "", 1) == "service 's' is limited to 1 rows a second"


def test_a_limit_can_be_lifted():
    made = limiter(callers={"default": RateLimit(per_s=1, concurrent=1)})
    made.follow(wanted(caller={"bulk": WantedLimit()}))
    made.take("s", "bulk", 1_000)
    made.take("s", "bulk", 1_000)
    with entered(made, "s", "bulk"), entered(made, "s", "bulk"):
        pass
    made.take("s", "other", 1)
    assert "'other'" in refusal(made.take, "s", "other", 1)


def test_what_nothing_limited_is_limited_from_then_on_and_not_for_longer():
    made = limiter()
    for kind, ask in {
        "service": lambda: made.take("x", "", 1),
        "caller": lambda: made.take("", "x", 1),
        "model": lambda: made.enter_model("x", 1),
        "party": lambda: made.parties.of("x").take(1),
        "resource": lambda: made.resources.of("x").take(1),
    }.items():
        made.follow(wanted(**{kind: {"x": WantedLimit(per_s=0)}}))
        assert refusal(ask) == f"{kind} 'x' is closed: its limit is 0 rows a second"
    made.follow(State())
    made.take("x", "x", 1)
    assert made.enter("x", "x") == ()
    assert made.parties.of("x") is None


def test_a_closed_name_says_when_to_look_again():
    made = limiter(services={"s": RateLimit(per_s=0)})
    with pytest.raises(LimitError) as refused:
        made.take("s", "", 1)
    assert refused.value.retry_after_s == 1.0


def test_of_a_rate_that_nodes_share_each_lets_in_its_part():
    clock = Clock()
    made = limiter(
        clock,
        services={"s": RateLimit(per_s=12, burst=24, across_nodes=True), "own": RateLimit(per_s=12, burst=24)},
        models={"m": RateLimit(per_s=12, burst=2, across_nodes=True)},
    )
    assert let_in(made, "s") == 24
    clock.tick(10)
    made.share(3)
    assert let_in(made, "s") == 8
    text = "service 's' is limited to 12 rows a second at all nodes together"
    assert refusal(made.take, "s", "", 1) == text
    clock.tick(1)
    assert let_in(made, "s") == 4
    assert let_in(made, "own") == 24
    made.enter_model("m", 1)  # its bucket holds fewer tokens than there are nodes
    assert "model 'm'" in refusal(made.enter_model, "m", 1)
    clock.tick(0.26)
    made.enter_model("m", 1)
    assert "model 'm'" in refusal(made.enter_model, "m", 1)


def test_nodes_that_come_and_go_fill_no_bucket():
    clock = Clock()
    made = limiter(clock, services={"s": RateLimit(per_s=12, burst=24, across_nodes=True)})
    assert let_in(made, "s") == 24
    for nodes in (2, 1, 3, 2):
        made.share(nodes)
        with pytest.raises(LimitError) as refused:
            made.take("s", "", 1)
        assert refused.value.retry_after_s == pytest.approx(nodes / 12)
    clock.tick(1)
    assert let_in(made, "s") == 6
    made.share(1)
    clock.tick(1)
    assert let_in(made, "s") == 12


def test_a_limit_is_shared_from_when_it_says_so_on():
    made = limiter()
    made.share(2)
    made.follow(wanted(service={"s": WantedLimit(per_s=1e-6, burst=8)}))
    made.take("s", "", 1)
    made.follow(wanted(service={"s": WantedLimit(per_s=1e-6, burst=8, across_nodes=True)}))
    assert let_in(made, "s") == 3
    made.follow(wanted(service={"t": WantedLimit(per_s=1e-6, burst=8, across_nodes=True)}))
    assert let_in(made, "t") == 4


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), max_size=60),
    st.floats(1, 50),
    st.integers(1, 30),
)
def test_nodes_together_let_in_no_more_than_the_rate(nodes, asked, per_s, burst):
    """But for one row at each: the last one that its bucket has any room for."""
    clock = Clock()
    made = [limiter(clock, services={"s": RateLimit(per_s=per_s, burst=burst, across_nodes=True)}) for _ in range(4)]
    for one in made:
        one.share(nodes)
    began, passed = clock(), 0
    for pause, at in asked:
        clock.tick(pause)
        try:
            made[at % nodes].take("s", "", 1)
            passed += 1
        except LimitError:
            pass
    assert passed <= burst + (clock() - began) * per_s + nodes


def let_in(made, service):
    """How many rows, one by one."""
    for number in range(1_000):
        try:
            made.take(service, "", 1)
        except LimitError:
            return number
    raise AssertionError("nothing limits it")


def test_calls_that_run_are_counted_whatever_becomes_of_their_limit():
    made = limiter(services={"s": RateLimit(concurrent=3)})
    running = [made.enter("s", "") for _ in range(3)]
    made.follow(wanted(service={"s": WantedLimit(per_s=5, concurrent=2)}))
    leave(running.pop())
    assert refusal(made.enter, "s", "") == "service 's' is limited to 2 calls at once"
    made.follow(wanted(service={"s": WantedLimit(per_s=5), "t": WantedLimit(concurrent=1)}))
    running.append(made.enter("s", ""))
    made.follow(State())
    assert refusal(made.enter, "s", "") == "service 's' is limited to 3 calls at once"
    for gates in running:
        leave(gates)
    running = [made.enter("s", "") for _ in range(3)]
    assert refusal(made.enter, "s", "") == "service 's' is limited to 3 calls at once"


def test_calls_that_run_are_counted_while_their_name_has_no_limit():
    made = limiter()
    made.follow(wanted(service={"s": WantedLimit(concurrent=1)}))
    running = made.enter("s", "")
    made.follow(wanted(service={"t": WantedLimit(concurrent=1)}))
    also = made.enter("s", "")
    made.follow(wanted(service={"s": WantedLimit(concurrent=2)}))
    assert "'s'" in refusal(made.enter, "s", "")
    leave(running)
    leave(also)
    leave(made.enter("s", ""))


def test_a_bucket_is_filled_when_its_rate_changes_and_not_else():
    made = limiter(services={"s": RateLimit(per_s=2)})
    made.take("s", "", 2)
    made.follow(wanted(service={"s": WantedLimit(per_s=2, concurrent=1)}))
    assert "2 rows" in refusal(made.take, "s", "", 1)
    made.follow(wanted(service={"s": WantedLimit(per_s=2, burst=4)}))
    made.take("s", "", 4)
    assert "2 rows" in refusal(made.take, "s", "", 1)


def test_the_default_can_be_set():
    made = limiter()
    made.follow(wanted(caller={"default": WantedLimit(per_s=1), "big": WantedLimit(per_s=5)}))
    made.take("", "a", 1)
    made.take("", "b", 1)
    made.take("", "big", 5)
    assert "caller 'a'" in refusal(made.take, "", "a", 1)
    made.follow(State())
    made.take("", "a", 1)


def test_kinds_of_a_newer_version_are_left_alone():
    made = limiter()
    made.follow(wanted(tenant={"x": WantedLimit(per_s=0)}))
    made.take("x", "x", 1)


def test_what_is_limited_is_told_with_where_that_comes_from():
    settings = Settings(
        party="bank",
        state_dir="",
        registry="",
        limits=Limits(services={"s": RateLimit(per_s=1)}, models={"default": RateLimit(concurrent=2)}),
        peers={"shop": PeerSettings(limit=RateLimit(per_s=9)), "telco": PeerSettings()},
    )
    made = make_limiter(settings)
    made.follow(wanted(service={"s": WantedLimit(per_s=3), "new": WantedLimit()}))
    told = [(one.kind, one.name, one.limit.per_s, one.is_set, one.settings) for one in made.statuses()]
    assert told == [
        (LimitKind.SERVICE, "new", None, True, None),
        (LimitKind.SERVICE, "s", 3, True, RateLimit(per_s=1)),
        (LimitKind.MODEL, "default", None, False, RateLimit(concurrent=2)),
        (LimitKind.PARTY, "shop", 9, False, RateLimit(per_s=9)),
    ]
