from __future__ import annotations

import pytest

from bench.harness.counters import Counters, parsed

NAME = "tessera_stage_seconds"


def node(started: float, calls: int, slow: int = 0) -> Counters:
    """A node with `calls` that took 1 ms and `slow` that took 3 s, and 10 times as many of another stage."""
    lines = [f"process_start_time_seconds {started}", f"# TYPE {NAME} histogram"]
    for stage, times in (("peers", 1), ("finish", 10)):
        for bound, count in (("0.0025", calls), ("1.0", calls), ("5.0", calls + slow), ("+Inf", calls + slow)):
            lines.append(f'{NAME}_bucket{{stage="{stage}",le="{bound}"}} {times * count}')
        lines.append(f'{NAME}_count{{stage="{stage}"}} {times * (calls + slow)}')
        lines.append(f'{NAME}_sum{{stage="{stage}"}} {times * (0.001 * calls + 3 * slow)}')
    return parsed("\n".join([*lines, ""]))


def test_totals_and_means_are_of_the_samples_with_these_labels() -> None:
    counters = node(1.0, 4)
    assert counters.total(f"{NAME}_count") == 44
    assert counters.total(f"{NAME}_count", stage="peers") == 4
    assert counters.mean(NAME, stage="peers") == pytest.approx(0.001)
    assert counters.total("nothing") == counters.mean("nothing") == counters.at_most("nothing", 0.5) == 0


def test_what_was_added_in_between_counts() -> None:
    added = node(1.0, 10, slow=1).since(node(1.0, 10))
    assert added is not None
    assert added.total(f"{NAME}_count", stage="peers") == 1
    assert added.mean(NAME, stage="peers") == pytest.approx(3)


def test_a_process_that_began_anew_has_added_nothing() -> None:
    assert node(2.0, 100).since(node(1.0, 10)) is None


@pytest.mark.parametrize(("share", "bound"), [(0.5, 0.0025), (0.9, 0.0025), (0.95, 5.0), (1.0, 5.0)])
def test_a_quantile_is_known_by_the_bound_of_its_bucket(share: float, bound: float) -> None:
    assert node(1.0, 9, slow=1).at_most(NAME, share, stage="peers") == bound
