from __future__ import annotations

import numpy as np
import pytest

from bench.replay.day import DAY_S, Habits, most_active, requests_of
from bench.replay.play import Levels, replay

HABITS = Habits(users=300, requests=600, zipf=1.0, revisits=1.0)


def test_a_day_is_in_order_and_of_the_size_asked_for() -> None:
    day = requests_of(HABITS, 1, np.random.default_rng(1))
    assert (np.diff(day.times) >= 0).all()
    assert day.times.min() >= DAY_S
    assert 400 < len(day.times) < 800
    assert len(np.unique(day.cases)) < len(day.cases)


def test_the_most_active_users_come_first_and_the_unseen_never() -> None:
    ranked = most_active(HABITS, 0.1, np.random.default_rng(1))
    assert len(ranked) == 30
    assert 0 in ranked[:3]
    assert len(most_active(Habits(1_000, 10, 1.0, 0.0), 1.0, np.random.default_rng(1))) <= 140


async def test_shares_add_up_and_warm_up_saves_calls() -> None:
    cold, warm = [await replay(HABITS, Levels(3_600.0, share)) for share in (0.0, 1.0)]
    for point in (cold, warm):
        assert point.l1 + point.l2 + point.l3 + point.asked == pytest.approx(1.0, abs=1e-3)
    assert cold.night_calls == 0 < warm.night_calls


async def test_a_day_in_the_shared_level_saves_more_than_an_hour() -> None:
    hour, day = [await replay(HABITS, Levels(hours * 3_600.0, 0.0)) for hours in (1, 24)]
    assert day.not_asked > hour.not_asked + 0.1


async def test_without_a_second_visit_or_warm_up_only_the_day_before_helps() -> None:
    once = Habits(users=100_000, requests=200, zipf=0.0, revisits=0.0)
    point = await replay(once, Levels(24 * 3_600.0, 0.0))
    assert point.l1 == 0.0
    assert point.asked > 0.95
