"""Which calls are traced, and how many of their spans are kept."""

from __future__ import annotations

import pytest

from serving.control import State, TraceChoice
from serving.settings import TraceSettings
from serving.telemetry.exposition import Exposition
from serving.telemetry.spans import Context, Kind
from serving.telemetry.tracer import Sampling, Tracer, span_metrics

SAMPLED = f"00-{'ab' * 16}-{'cd' * 8}-01"
SILENT = SAMPLED[:-1] + "0"


def tracer(chance: float = 0.5, **settings: object) -> Tracer:
    made = TraceSettings(**settings)  # type: ignore[arg-type]
    return Tracer(made, Sampling(made, lambda: chance))


@pytest.mark.parametrize(
    ("share", "follow", "came", "traced"),
    [
        (0.0, True, "", False),
        (0.4, True, "", False),
        (0.6, True, "", True),
        (0.0, True, SAMPLED, True),
        (1.0, True, SILENT, False),
        (0.0, False, SAMPLED, False),
        (1.0, False, SILENT, True),
        (1.0, True, "nonsense", True),
    ],
)
def test_a_context_decides_else_the_share(share: float, follow: bool, came: str, traced: bool) -> None:
    span = tracer(share=share, follow=follow).serve("call", came)
    assert (span is not None) is traced
    if span is not None:
        parents = {SAMPLED: Context(int("ab" * 16, 16), int("cd" * 8, 16))} if follow else {}
        assert span.parent == parents.get(came)


@pytest.mark.parametrize(
    ("follow", "came", "state", "kept"),
    [
        (True, SAMPLED, "a=1", "a=1"),
        (True, SAMPLED, "nonsense", ""),
        (True, "nonsense", "a=1", ""),
        (False, SAMPLED, "a=1", ""),
    ],
)
def test_a_state_goes_with_its_context(follow: bool, came: str, state: str, kept: str) -> None:
    span = tracer(share=1.0, follow=follow).serve("call", came, state)
    assert span is not None
    assert span.context.state == kept


def test_a_share_is_kept_on_the_whole() -> None:
    settings = TraceSettings(share=0.1)
    taken = sum(Sampling(settings).takes(None) for _ in range(20_000))
    assert 1_700 < taken < 2_300


def test_operators_choose_at_run_time() -> None:
    one = tracer(share=0.0)
    one.sampling.follow(State(traces=TraceChoice(share=1.0, serial=1)))
    assert one.serve("call", "") is not None
    one.sampling.follow(State(traces=TraceChoice(is_on=False, serial=2)))
    assert one.serve("call", SAMPLED) is None
    one.sampling.follow(State())
    assert one.serve("call", "") is None
    assert one.serve("call", SAMPLED) is not None


def test_a_count_runs_down_and_begins_anew_with_a_new_choice() -> None:
    one = tracer(share=1.0)
    for serial in (1, 2):
        for _ in range(2):  # told again, it is no new choice
            one.sampling.follow(State(traces=TraceChoice(count=2, serial=serial)))
            assert one.serve("call", SAMPLED) is not None  # counts nothing
        assert [one.serve("call", "") is not None for _ in range(4)] == [True, True, False, False]


def test_what_has_no_room_is_dropped_and_counted() -> None:
    one = tracer(max_spans=2)
    for number in range(5):
        one.begin(str(number), Kind.SERVER, None).end()
    text = Exposition([lambda: span_metrics(one, lambda: (7, 8))]).text().decode()
    for outcome, count in (("sent", 7), ("failed", 8), ("dropped", 3)):
        assert f'tessera_spans_total{{outcome="{outcome}"}} {count}.0' in text
    assert "tessera_spans_waiting 2.0" in text
    assert [span.name for span in one.take(1)] == ["0"]
    one.begin("5", Kind.SERVER, None).end()
    assert [span.name for span in one.take(10)] == ["1", "5"]


def test_whoever_sends_is_told_that_there_is_something() -> None:
    one = tracer()
    assert not one.came.is_set()
    one.begin("call", Kind.SERVER, None).end()
    assert one.came.is_set()
