from __future__ import annotations

import pytest

from bench.harness.faults import recovery_s
from bench.load import LoadResult
from bench.load.recorder import Recorder, Window

START = 50.0


def result(failing: set[int]) -> LoadResult:
    """5 s in which each tenth of a second has a call; those of `failing` fail."""
    recorder = Recorder(Window(START, START, START + 5))
    for number in range(50):
        at = START + number / 10 + 0.05
        recorder.sent(at, at)
        recorder.ended(at, at, "UNAVAILABLE" if number in failing else "OK")
    return recorder.result(10.0)


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        (set(), 0.0),
        ({10, 11, 12}, 0.0),  # before the return
        ({10, 20, 21}, 0.2),
        ({20, 25}, 0.6),  # well in between does not count as well
        ({20, 45}, 0.1),  # the later one is another story
    ],
)
def test_recovery_ends_with_the_last_failure_that_belongs_to_it(failing: set[int], expected: float) -> None:
    assert recovery_s(result(failing), returned=START + 2, until=START + 4) == pytest.approx(expected)
