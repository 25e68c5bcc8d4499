"""Figures of versions, of one worker and of several."""

from __future__ import annotations

from serving.frontdoor.oip.figures import Figures, encoded, summed
from serving.telemetry.worker_files import Told

S1, S2 = ("s", "1"), ("s", "2")


def test_figures_of_all_workers_are_summed() -> None:
    one = Figures(2, 20, 1, 5, 3, 7, 10, 2, 1_000, {1: (1, 4), 9: (1, 16)})
    other = Figures(1, 2, 4, 8, 16, 32, 64, 128, 900, {9: (2, 1), 2: (5, 6)})
    told = [Told("b/1", "1", encoded({S1: other, S2: other})), Told("b/2", "1", b"of another version")]
    total = summed({S1: one}, told)
    both = Figures(3, 22, 5, 13, 19, 39, 74, 130, 1_000, {1: (1, 4), 9: (3, 17), 2: (5, 6)})
    assert total == {S1: both, S2: other}
    assert one == Figures(2, 20, 1, 5, 3, 7, 10, 2, 1_000, {1: (1, 4), 9: (1, 16)}), "its own count stays"


def test_a_worker_that_is_alone_shows_its_own() -> None:
    counted = Figures()
    counted.executed(3, 40)
    assert summed({S1: counted}, []) == {S1: counted}
