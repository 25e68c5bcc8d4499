from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from loaders.artifact import Link, Manifest, Merge, MergeKind, Points
from loaders.loader import LoadError
from loaders.merge import credit_points, merge_rule, stand_ins
from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import Steps
from loaders.signature import Signature, TensorSpec
from tests.artifacts import linear_half

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


@pytest.mark.parametrize("labels", [("a",), ("a", "b", "c")])
def test_names_for_more_or_fewer_scores_than_there_are_do_not_load(labels: tuple[str, ...]) -> None:
    merge_rule(Merge(kind=MergeKind.SUM, labels=("a", "b")), LINEAR)
    with pytest.raises(LoadError, match=f"merge names {len(labels)} scores, the half gives 2"):
        merge_rule(Merge(kind=MergeKind.SUM, labels=labels), LINEAR)


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


@pytest.mark.parametrize(
    ("probability", "points"),
    [(0.5, 500.0), (1 / 3, 520.0), (0.0, 1500.0), (1e-9, 1500.0), (1.0, 0.0), (1 - 1e-9, 0.0), (0.999999, 101.37)],
)
def test_points_are_made_of_the_probability(probability: float, points: float) -> None:
    assert credit_points(np.array([[probability]]), Points())[0, 0] == pytest.approx(points, abs=1e-9)


def test_points_stay_within_their_limits_and_round_as_they_are_told() -> None:
    narrow = Points(offset=100.0, upper_limit_ratio=1.5, lower_limit=80.0)
    assert credit_points(np.array([[0.001], [0.999]]), narrow)[:, 0].tolist() == [150.0, 80.0]
    half = Points(offset=0.125, upper_limit_ratio=10.0, factor=1e-300)
    up = Points(offset=0.125, upper_limit_ratio=10.0, factor=1e-300, half_up=True)
    assert [credit_points(np.array([[0.5]]), rule)[0, 0] for rule in (half, up)] == [0.12, 0.13]


def test_points_come_after_the_link() -> None:
    rule = merge_rule(Merge(kind=MergeKind.SUM, link=Link.SIGMOID, points=Points()), LINEAR)
    assert rule([np.array([[0.0, math.log(0.5)]])])[0].tolist() == [500.0, 520.0]


def declaring(kind: MergeKind, **declared: list[float]) -> Manifest:
    manifest, _ = linear_half("m", "1", "guest", "bank", {"x": 1.0})
    return msgspec.structs.replace(manifest, merge=Merge(kind=kind), stand_ins=declared)


def test_what_stands_in_for_a_host_is_one_row() -> None:
    [(party, values)] = stand_ins(declaring(MergeKind.SUM, shop=[0.25, -1.0]), LINEAR).items()
    assert (party, values.tolist()) == ("shop", [[0.25, -1.0]])
    assert stand_ins(declaring(MergeKind.NONE), LINEAR) == {}


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.inf], [0.5, 0.5, 0.5]])
def test_what_stands_in_must_be_as_wide_as_a_partial(values: list[float]) -> None:
    with pytest.raises(LoadError, match="party 'shop' needs 2 finite numbers"):
        stand_ins(declaring(MergeKind.SUM, shop=values), LINEAR)


@pytest.mark.parametrize("kind", [MergeKind.NONE, MergeKind.TREE_WALK, MergeKind.FACTORS])
def test_nothing_stands_in_where_outputs_are_not_added(kind: MergeKind) -> None:
    with pytest.raises(LoadError, match="stand_ins are for merge kind 'sum'"):
        stand_ins(declaring(kind, shop=[0.5, 0.5]), LINEAR)
