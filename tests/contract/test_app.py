"""What every app promises."""

from __future__ import annotations

import numpy as np
import pytest

from apps.app import App, Request, Result
from apps.catalog import AppParametersError, make_app, names
from loaders.signature import FeatureError, Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec(name="a", dtype="float64", shape=(-1,)), TensorSpec(name="t", dtype="string", shape=(-1,))),
    (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),),
)
ROW = Request("s", "", "", "", ("u",), numbers={"a": 1.0}, texts={"t": "x"})


@pytest.fixture(params=names())
def app(request: pytest.FixtureRequest) -> App:
    return make_app(request.param)


def test_the_apps_own_examples_hold(app: App) -> None:
    for example in app.examples:
        answer = app.postprocess(ROW, Result(np.array([example.score]))).scores
        assert answer.tolist() == [pytest.approx(example.answer, abs=1e-9)]


def test_an_unknown_parameter_is_refused(app: App) -> None:
    with pytest.raises(AppParametersError, match=f"app '{app.name}'.*nonsense"):
        make_app(app.name, '{"nonsense": 1}')


@pytest.mark.parametrize("parameters", ["[]", "{", "1", '{"ignore_unknown": 3}'])
def test_parameters_are_a_json_object_of_the_right_types(app: App, parameters: str) -> None:
    with pytest.raises(AppParametersError, match=app.name):
        make_app(app.name, parameters)


def test_features_are_checked(app: App) -> None:
    assert app.preprocess(ROW, SIGNATURE).numbers.tolist() == [[1.0]]
    for wrong in (Request("s", "", "", "", ("u",)), Request("s", "", "", "", ("u",), numbers={"a": 1.0, "z": 1.0})):
        with pytest.raises(FeatureError):
            app.preprocess(wrong, SIGNATURE)


def test_the_packed_form_gives_the_same_rows(app: App) -> None:
    packed = Request(
        "s", "", "", "", ("u",), texts={"t": "x"}, matrix=np.array([[1.0]]), signature_hash=SIGNATURE.digest
    )
    batch = app.preprocess(packed, SIGNATURE)
    assert (batch.numbers.tolist(), batch.texts.tolist()) == ([[1.0]], [["x"]])
    two = Request(
        "s",
        "",
        "",
        "",
        ("u", "v"),
        texts={"t": ["x", "y"]},
        matrix=np.array([[1.0], [2.0]]),
        signature_hash=SIGNATURE.digest,
        columnar=True,
    )
    assert app.preprocess(two, SIGNATURE).texts.tolist() == [["x"], ["y"]]


def test_processing_is_pure_and_keeps_the_shape(app: App) -> None:
    scores = np.array([[0.25], [0.5], [0.9]])
    first, again = (app.postprocess(ROW, Result(scores)).scores for _ in range(2))
    assert first.shape == scores.shape
    assert first.tolist() == again.tolist()
    assert scores.tolist() == [[0.25], [0.5], [0.9]]
