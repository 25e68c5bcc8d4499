from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.app import AppError, Request, Result
from apps.catalog import AppParametersError, make_app

REQUEST = Request("s", "", "", "", ("u",))


def points(probability: float, parameters: str = "") -> float:
    scores = make_app("scorecard", parameters).postprocess(REQUEST, Result(np.array([[probability]]))).scores
    return float(scores[0, 0])


def test_even_odds_give_the_offset() -> None:
    assert points(0.5) == 500.0
    assert points(0.5, '{"offset": 650}') == 650.0


def test_the_factor_is_what_doubled_odds_are_worth() -> None:
    assert points(1 / 3) == 520.0
    assert points(2 / 3) == 480.0
    assert points(0.1, '{"factor": 30, "factor_base": 3}') == round(500 + 30 / math.log(3) * math.log(9), 2)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 1500.0), (1e-9, 1500.0), (1.0, 0.0), (1 - 1e-9, 0.0)])
def test_certainty_gives_the_bounds(probability: float, expected: float) -> None:
    assert points(probability) == expected


def test_points_stay_within_the_bounds() -> None:
    assert points(1e-7, '{"upper_limit_ratio": 1.1}') == pytest.approx(550.0)
    assert points(0.999, '{"lower_limit": 450}') == 450.0


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_probability_is_the_models_fault(probability: float) -> None:
    with pytest.raises(AppError, match="needs a probability"):
        points(probability)


@pytest.mark.parametrize(
    "parameters",
    ['{"factor": 0}', '{"factor_base": 1}', '{"upper_limit_ratio": -1}', '{"offset": -10}', '{"lower_limit": 1500}'],
)
def test_parameters_have_ranges(parameters: str) -> None:
    with pytest.raises(AppParametersError, match="scorecard"):
        make_app("scorecard", parameters)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_probability_never_scores_higher(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert points(low) >= points(high)
