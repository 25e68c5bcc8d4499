import json

import numpy as np
import pytest

from apps.app import AppError, Request, Result
from apps.catalog import AppParametersError, make_app
from loaders.signature import Batch, Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec(name="age", dtype="float64", shape=(-1,)), TensorSpec(name="city", dtype="string", shape=(-1,))), ()
)
BATCH = Batch(np.array([[17.0], [30.0], [90.0]]), np.array([["Bonn"], ["Kiel"], [None]], dtype=object))
REQUEST = Request("s", "", "", "", ("a", "b", "c"))


def answer(*rules, scores=(0.2, 0.5, 0.9)):
    app = make_app("rules", json.dumps({"rules": rules}))
    return app.postprocess(REQUEST, Result(np.array([scores]).T, (), BATCH, SIGNATURE))


def test_the_first_rule_that_holds_decides():
    result = answer(
        {"when": "age < 18", "do": "reject", "value": 1.0},
        {"when": "age < 40", "do": "override", "value": 0.3, "label": "young"},
        {"when": "score > 0", "do": "cap", "value": 0.7, "label": "capped"},
    )
    assert result.scores[:, 0].tolist() == [1.0, 0.3, 0.7]
    assert result.labels == ("rejected", "young", "capped")


def test_bounds_only_move_what_is_beyond_them():
    rule = {"when": "score > 0", "do": "cap", "value": 0.6}
    assert answer(rule).scores[:, 0].tolist() == [0.2, 0.5, 0.6]
    assert answer({**rule, "do": "raise"}).scores[:, 0].tolist() == [0.6, 0.6, 0.9]
    assert answer(rule).labels == ()


def test_texts_and_the_score_are_there():
    assert answer({"when": "city == 'Kiel' and score == 0.5", "do": "override", "value": 0}).scores[:, 0].tolist() == [
        0.2,
        0.0,
        0.9,
    ]


def test_the_models_scores_stay_as_they_are():
    scores = np.array([[0.2], [0.5], [0.9]])
    app = make_app("rules", '{"rules": [{"when": "score > 0", "do": "override", "value": 0}]}')
    app.postprocess(REQUEST, Result(scores, (), BATCH, SIGNATURE))
    assert scores[:, 0].tolist() == [0.2, 0.5, 0.9]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"rules": [{"when": "age <", "do": "cap"}]}, "rule 'age <': character 6: expected a number"),
        ({"rules": [{"when": "age < 1", "do": "explode"}]}, "explode"),
        ({"rules": [{"do": "cap"}]}, "when"),
    ],
)
def test_wrong_rules_are_refused(parameters, said):
    with pytest.raises(AppParametersError, match=said):
        make_app("rules", json.dumps(parameters))


@pytest.mark.parametrize(
    ("when", "said"),
    [("height > 3", "no number feature 'height'"), ("age == 'old'", "no text feature 'age'"), ("city > 3", "'city'")],
)
def test_rules_about_features_that_the_model_lacks_are_refused_when_bound(when, said):
    app = make_app("rules", json.dumps({"rules": [{"when": when, "do": "cap"}]}))
    with pytest.raises(ValueError, match=said):
        app.check(SIGNATURE)


def test_a_feature_that_is_not_there_is_named():
    with pytest.raises(AppError, match="the model has no feature 'height'"):
        answer({"when": "height > 3", "do": "cap"})
