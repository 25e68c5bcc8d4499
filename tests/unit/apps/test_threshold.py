import numpy as np
import pytest

from apps.app import AppError, Request, Result
from apps.catalog import AppParametersError, make_app

STEPS = '{"steps": [{"at": 0.2, "label": "medium"}, {"at": 0.8, "label": "high"}], "below": "low"}'


def test_a_score_has_the_label_of_the_step_that_it_reaches():
    scores = np.array([[0.0], [0.19], [0.2], [0.79], [0.8], [1.0]])
    result = make_app("threshold", STEPS).postprocess(Request("s", "", "", "", ("u",) * 6), Result(scores))
    assert result.labels == ("low", "low", "medium", "medium", "high", "high")
    assert result.scores.tolist() == scores.tolist()


def test_steps_must_rise():
    with pytest.raises(AppParametersError, match="do not rise"):
        make_app("threshold", '{"steps": [{"at": 0.8, "label": "a"}, {"at": 0.2, "label": "b"}]}')


def test_there_is_one_score_to_label():
    with pytest.raises(AppError, match="labels one score per row, the model gives 2"):
        make_app("threshold").postprocess(Request("s", "", "", "", ("u",)), Result(np.array([[0.1, 0.9]])))
