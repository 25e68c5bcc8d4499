"""Contexts as the standard has them, and spans under each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from serving.settings import TraceSettings
from serving.telemetry.spans import HERE, Context, Kind, incoming, state_in, within
from serving.telemetry.tracer import Sampling, Tracer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = Context(int(TRACE, 16), int(SPAN, 16))


def tracer() -> Tracer:
    settings = TraceSettings(share=1)
    times = iter(range(1, 1_000))
    return Tracer(settings, Sampling(settings), lambda: next(times))


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_context_that_comes_is_read(text: str, sampled: bool) -> None:
    assert incoming(text) == (GIVEN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_the_standard_does_not_allow_is_no_context(text: str) -> None:
    assert incoming(text) is None


def test_a_context_that_goes_is_read_as_it_was() -> None:
    assert incoming(Context(1, 2).traceparent()) == (Context(1, 2), True)


MANY = [f"k{number}=v" for number in range(33)]


@pytest.mark.parametrize(
    ("came", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("fw529a3039@dt=FfAE:a/b;c d,0a@v=!", "fw529a3039@dt=FfAE:a/b;c d,0a@v=!"),
        (" b=1 ,\ta= 2,,", "b=1,a= 2"),
        (",".join(MANY[:32]), ",".join(MANY[:32])),
        (f"a={'x' * 256},b={'x' * 251}", f"a={'x' * 256},b={'x' * 251}"),
        ("", ""),
        ("nonsense", ""),
        ("a=1,nonsense", ""),
        ("a=1,A=2", ""),
        ("a=1,b=", ""),
        ("a=1,b=2=3", ""),
        ("a=1,a=2", ""),
        ("a=1,b=\x7f", ""),
        ("a=1,b=\xe9", ""),
        ("a=1,b=2\n", ""),
        ("1a=1", ""),
        (f"a={'x' * 257}", ""),
        (",".join(MANY), ""),
        (f"a={'x' * 256},b={'x' * 252}", ""),
    ],
)
def test_what_systems_of_callers_keep_is_passed_on_as_it_came_or_not_at_all(came: str, kept: str) -> None:
    assert state_in(came) == kept
    assert [member.strip() for member in came.split(",") if member.strip()] == kept.split(",") or not kept


@given(st.text(max_size=40) | st.text("ab1@=,_ \t", max_size=40))
def test_what_is_passed_on_stands_by_the_standard(came: str) -> None:
    kept = state_in(came)
    assert state_in(kept) == kept
    assert ",".join(f"{key}={value}" for key, value in TraceState.from_header([kept]).items()) == kept


def test_steps_are_in_the_state_of_their_trace() -> None:
    keeping = tracer()
    span = keeping.begin("call", Kind.SERVER, GIVEN._replace(state="a=1"))
    told = span.child("step").context.metadata()
    assert [key for key, _ in told] == ["traceparent", "tracestate"]
    assert told[1] == ("tracestate", "a=1")
    assert [key for key, _ in keeping.begin("call", Kind.SERVER, None).context.metadata()] == ["traceparent"]


def test_steps_are_children_and_a_failed_one_says_by_what() -> None:
    keeping = tracer()
    span = keeping.begin("call", Kind.SERVER, GIVEN)
    with span.step("fine") as fine:
        fine.attributes["rows"] = 2
    with pytest.raises(ZeroDivisionError), span.step("wrong"):
        raise ZeroDivisionError("about a user")
    span.end()
    kept = keeping.take(10)
    assert [(one.name, one.failure) for one in kept] == [("fine", ""), ("wrong", "ZeroDivisionError"), ("call", "")]
    assert {one.context.trace_id for one in kept} == {GIVEN.trace_id}
    assert [one.parent for one in kept] == [span.context, span.context, GIVEN]
    assert len({one.context.span_id for one in kept}) == 3
    assert all(one.began_ns < one.ended_ns for one in kept)


def test_a_span_ends_once() -> None:
    keeping = tracer()
    span = keeping.begin("call", Kind.SERVER, None)
    span.end("UNAVAILABLE")
    span.end()
    assert [one.failure for one in keeping.take(10)] == ["UNAVAILABLE"]


def test_a_place_is_left_as_it_was() -> None:
    span = tracer().begin("call", Kind.SERVER, None)
    with within(span):
        with within(None):
            assert HERE.get() is None
        assert HERE.get() is span
    assert HERE.get() is None
