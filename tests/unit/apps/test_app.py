"""What apps share: rows from every form of a request, and examples that are run before an app is used."""

from __future__ import annotations

from typing import ClassVar

import msgspec
import numpy as np
import pytest

from apps.app import App, AppError, Example, Request, Result, features_of, run_examples
from loaders.signature import Batch, FeatureError, Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec(name="a", dtype="float64", shape=(-1,)), TensorSpec(name="b", dtype="float64", shape=(-1,))),
    (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),),
)


def packed(matrix: list[list[float]], users: int, signature_hash: bytes = SIGNATURE.digest) -> Request:
    names = tuple(f"u{number}" for number in range(users))
    return Request("s", "", "", "", names, matrix=np.array(matrix), signature_hash=signature_hash, columnar=True)


def test_every_form_gives_the_same_rows() -> None:
    named = Request("s", "", "", "", ("u",), numbers={"b": 2.0, "a": 1.0})
    columns = Request("s", "", "", "", ("u",), numbers={"b": [2.0], "a": [1.0]}, columnar=True)
    batches = [features_of(request, SIGNATURE) for request in (named, columns, packed([[1.0, 2.0]], 1))]
    assert [batch.numbers.tolist() for batch in batches] == [[[1.0, 2.0]]] * 3


def test_unknown_features_are_dropped_only_on_request() -> None:
    for request in (
        Request("s", "", "", "", ("u",), numbers={"a": 1.0, "b": 2.0, "z": 3.0}),
        Request("s", "", "", "", ("u",), numbers={"a": [1.0], "b": [2.0], "z": [3.0]}, columnar=True),
    ):
        with pytest.raises(FeatureError, match="unknown feature 'z'"):
            features_of(request, SIGNATURE)
        assert features_of(request, SIGNATURE, ignore_unknown=True).numbers.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (packed([[1.0, 2.0]], 1, b"\xab\xcd"), f"signature_hash is abcd, the model's is {SIGNATURE.digest.hex()}"),
        (packed([[1.0, 2.0]], 1, b""), "signature_hash is empty"),
        (packed([[1.0]], 1), "1 numbers in a row, the model takes 2"),
        (packed([[1.0, 2.0]], 2), "1 rows of numbers for 2 users"),
        (packed([[1.0, float("inf")]], 1), "'b' is infinite"),
        (packed([[float("nan"), 2.0]], 1), "'a' is missing"),
    ],
)
def test_a_packed_request_that_does_not_fit_says_why(request_: Request, text: str) -> None:
    with pytest.raises(FeatureError, match=text):
        features_of(request_, SIGNATURE)


class Double(App):
    name: ClassVar[str] = "double"
    Parameters: ClassVar[type[msgspec.Struct]] = msgspec.defstruct("DoubleParameters", [])
    examples = (Example((1.0, 2.0), (2.0, 4.0)),)

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        return features_of(request, signature)

    def postprocess(self, request: Request, result: Result) -> Result:
        if (result.scores < 0).any():
            raise ZeroDivisionError("below zero")
        return Result(result.scores * 2)


def test_an_app_that_meets_its_examples_may_be_used() -> None:
    run_examples(Double)


@pytest.mark.parametrize(
    ("examples", "text"),
    [
        ((), "'double' has no examples"),
        ((Example((1.0,), (2.0,)), Example((1.0,), (3.0,))), r"'double' makes \[\[2\.0\]\] of its own example"),
        ((Example((1.0,), (2.0, 2.0)),), "'double' makes"),
        ((Example((-1.0,), (-2.0,)),), "'double' fails its own example .*below zero"),
    ],
)
def test_an_app_that_does_not_meet_its_examples_is_named(
    monkeypatch: pytest.MonkeyPatch, examples: tuple[Example, ...], text: str
) -> None:
    monkeypatch.setattr(Double, "examples", examples)
    with pytest.raises(AppError, match=text):
        run_examples(Double)
