from __future__ import annotations

import math

import numpy as np
import pytest

from loaders.artifact import Link, Merge, MergeKind
from loaders.loader import LoadError
from loaders.merge import merge_rule
from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import Steps
from loaders.signature import Signature, TensorSpec

LINEAR = LinearServable(
    Signature((), (TensorSpec(name="partial", dtype="float64", shape=(-1, 2)),)),
    Steps(np.zeros(0), np.zeros(0), np.ones(0)),
    np.zeros((0, 2)),
    np.zeros(2),
)
GUEST, HOST = np.array([[1.0, -2.0]]), np.array([[0.5, 3.0]])


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link.IDENTITY, [1.5, 1.0]),
        (Link.SIGMOID, [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-1.0))]),
        (Link.EXP, [math.exp(1.5), math.e]),
        (Link.SOFTMAX, [math.exp(0.5) / (math.exp(0.5) + 1), 1 / (math.exp(0.5) + 1)]),
    ],
)
def test_partials_are_added_and_linked(link: Link, expected: list[float]) -> None:
    merged = merge_rule(Merge(kind=MergeKind.SUM, link=link), LINEAR)([GUEST, HOST])
    assert merged[0].tolist() == pytest.approx(expected, abs=1e-15)


def test_a_local_model_stands_alone() -> None:
    assert merge_rule(Merge(kind=MergeKind.NONE), LINEAR)([GUEST]).tolist() == GUEST.tolist()


def test_any_number_of_hosts() -> None:
    merged = merge_rule(Merge(kind=MergeKind.SUM), LINEAR)([GUEST, HOST, HOST, HOST])
    assert merged.tolist() == [[2.5, 7.0]]
    assert GUEST.tolist() == [[1.0, -2.0]], "the guest's own partial is not changed"


def test_extreme_values_stay_probabilities() -> None:
    extreme = np.array([[-1e308], [-800.0], [0.0], [800.0], [1e308]])
    merged = merge_rule(Merge(kind=MergeKind.SUM, link=Link.SIGMOID), LINEAR)([extreme])
    assert merged[:, 0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    classes = merge_rule(Merge(kind=MergeKind.NONE, link=Link.SOFTMAX), LINEAR)(
        [np.array([[1e308, -1e308], [1e4, 1e4]])]
    )
    assert classes.sum(axis=1).tolist() == [1.0, 1.0]


def test_an_expectation_too_large_for_a_number_is_infinite() -> None:
    assert merge_rule(Merge(kind=MergeKind.SUM, link=Link.EXP), LINEAR)([np.array([[800.0]])]).tolist() == [[math.inf]]


def test_a_rule_for_another_kind_of_half_is_refused_at_load() -> None:
    with pytest.raises(LoadError, match="'tree_walk' is not for halves that give NUMBERS"):
        merge_rule(Merge(kind=MergeKind.TREE_WALK), LINEAR)
