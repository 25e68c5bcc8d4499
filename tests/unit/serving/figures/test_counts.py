from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.figures import scores
from serving.figures.counts import PUT_ASIDE, Subject, Tally, outcome_cell, read
from serving.telemetry.histogram import BOUNDS_S

SUBJECT = Subject("s", "m:1")


def test_subjects_are_kept_as_text() -> None:
    for subject in (SUBJECT, Subject("", 'm:"1"', shadow=True)):
        assert Subject.of(subject.key()) == subject


@given(st.lists(st.tuples(st.floats(-1e7, 1e7), st.floats(0, 20)), min_size=1, max_size=50))
def test_one_by_one_and_in_batches_come_to_the_same(answers: list[tuple[float, float]]) -> None:
    single, batched = Tally(), Tally()
    for score, seconds in answers:
        single.answers([score], [seconds])
    batched.answers(*zip(*answers, strict=True))
    one, many = single.take(), batched.take()
    total = sum(seconds for _, seconds in answers)
    assert read(SUBJECT, one).seconds_mean == pytest.approx(total / len(answers), abs=1e-6)
    exact = {cell: count for cell, count in one.items() if count < 1_000 and cell < 3_000}
    assert exact == Counter(scores.bin_of(score) for score, _ in answers)
    first, second = read(SUBJECT, one), read(SUBJECT, many)
    assert first.score_quantiles == second.score_quantiles
    assert (first.answers, first.seconds_p50, first.seconds_p99) == (
        second.answers,
        second.seconds_p50,
        second.seconds_p99,
    )


def test_times_are_told_by_bucket() -> None:
    tally = Tally()
    tally.answers([0.1] * 4, [0.000_1, 0.000_2, 0.004, 60.0])
    times = read(SUBJECT, tally.take()).times
    assert len(times) == len(BOUNDS_S) + 1
    assert {place: count for place, count in enumerate(times) if count} == {0: 1, 1: 1, 5: 1, len(BOUNDS_S): 1}


def test_what_is_put_aside_is_bounded_and_counted() -> None:
    tally = Tally()
    for number in range(3 * PUT_ASIDE + 5):
        tally.answers([number / 10_000], [0.001])
    assert read(SUBJECT, tally.take()).answers == 3 * PUT_ASIDE + 5
    assert tally.take() == {}


def test_what_could_not_be_kept_is_given_back() -> None:
    tally = Tally()
    tally.answers([0.5], [0.001])
    taken = tally.take()
    tally.answers([0.5], [0.001])
    tally.give_back(taken)
    assert read(SUBJECT, tally.take()).answers == 2


def test_outcomes_stand_apart_by_label() -> None:
    found = read(SUBJECT, {outcome_cell(0.9, positive=True): 3, outcome_cell(0.1, positive=False): 2, 10**6: 7})
    assert (found.positives, found.negatives, found.answers, found.auc, found.ks) == (3, 2, 0, 1.0, 1.0)
    assert found.seconds_mean is found.seconds_p50 is found.moved is None
