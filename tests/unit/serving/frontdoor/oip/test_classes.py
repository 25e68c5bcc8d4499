from __future__ import annotations

import math

import numpy as np
import pytest

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.classes import classified
from serving.frontdoor.oip.tensors import BYTES, Tensor, of_texts

SCORES = Tensor("score", "FP64", np.array([[0.25, 0.5, 0.25], [1.0, -2.0, 3.0]]))


def test_the_largest_come_first_with_place_and_name() -> None:
    named = classified(SCORES, 2, ("low", "mid", "high"))
    assert (named.name, named.datatype) == ("score", BYTES)
    assert named.array.tolist() == [
        [b"0.500000:1:mid", b"0.250000:0:low"],
        [b"3.000000:2:high", b"1.000000:0:low"],
    ]


def test_without_a_name_for_each_there_are_none() -> None:
    assert classified(SCORES, 1, ("yes", "no")).array.tolist() == [[b"0.500000:1"], [b"3.000000:2"]]


def test_no_more_come_than_there_are() -> None:
    assert classified(SCORES, 9, ()).array.shape == (2, 3)
    assert classified(Tensor("x", "INT64", np.array([[7], [8]])), 2, ()).array.tolist() == [
        [b"7.000000:0"],
        [b"8.000000:0"],
    ]
    assert classified(Tensor("x", "FP64", np.empty((0, 3))), 2, ()).array.shape == (0, 2)


def test_what_is_missing_comes_last() -> None:
    row = Tensor("score", "FP64", np.array([[math.nan, 1.0]]))
    assert classified(row, 2, ()).array.tolist() == [[b"1.000000:1", b"nan:0"]]


def test_texts_have_no_largest() -> None:
    with pytest.raises(InvalidRequestError, match="'label' holds texts"):
        classified(of_texts("label", ["a"]), 1, ())
