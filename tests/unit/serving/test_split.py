"""The split of a service's users among its variants, as users meet it: weights, moves, replicas, restarts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.catalog import make_app
from serving import bindings
from serving.bindings import VariantWeight
from serving.control import Binding, FileControlStore, Service, State
from serving.pool import ModelId
from serving.routing import BUCKETS, ServiceRoute

USERS = [f"user-{number:06d}" for number in range(100_000)]
FEW = USERS[:5_000]
SALT = "5a" * 16
APP = make_app("passthrough")

Weights = dict[str, int]
"""Basis points by version."""


def service(weights: Weights, before: Service | None = None, salt: str = SALT) -> Service:
    given_weights = [VariantWeight(ModelId("m", version), weight) for version, weight in weights.items() if weight]
    binding = Binding(variants=bindings.variants(before, given_weights), app="passthrough")
    return Service(revision=1, epoch=1, salt=salt, current=binding, previous=before.current if before else None)


def route(one: Service) -> ServiceRoute:
    return bindings.routes(State(services={"s": one}), APP).services["s"]


def met(one: Service, users: list[str]) -> list[str]:
    found = route(one)
    return [found.pick(user).model.version for user in users]


@st.composite
def splits(draw: st.DrawFn) -> tuple[Weights, Weights]:
    """Three to six versions before and after; some come, some go."""
    count = draw(st.integers(3, 6))
    sides = []
    for _ in range(2):
        cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=count - 1, max_size=count - 1)))
        shares = [high - low for low, high in zip([0, *cuts], [*cuts, BUCKETS], strict=True)]
        sides.append({str(version): share for version, share in enumerate(shares)})
    return sides[0], sides[1]


@pytest.mark.parametrize(
    "weights",
    [
        {"1": 10_000},
        {"1": 9_500, "2": 500},
        {"1": 5_000, "2": 3_000, "3": 2_000},
        {"1": 100, "2": 200, "3": 700, "4": 4_000, "5": 5_000},
    ],
)
@pytest.mark.parametrize("salt", ["00", SALT, "ff" * 16])
def test_100_000_users_split_within_one_percent(weights: Weights, salt: str) -> None:
    counts = Counter(met(service(weights, salt=salt), USERS))
    for version, weight in weights.items():
        assert abs(counts[version] / len(USERS) - weight / BUCKETS) < 0.01


@settings(max_examples=25)
@given(splits())
def test_a_changed_weight_moves_no_user_who_need_not_move(change: tuple[Weights, Weights]) -> None:
    """A user leaves a version only when that version shrinks, and goes to one that grows."""
    before, after = change
    old = service(before)
    pairs = Counter(zip(met(old, FEW), met(service(after, old), FEW), strict=True))
    for (left, entered), count in pairs.items():
        if left != entered:
            assert after[left] < before[left], count
            assert after[entered] > before[entered], count


@settings(max_examples=10)
@given(splits(), splits())
def test_the_fewest_users_move_whatever_came_before(one: tuple[Weights, Weights], two: tuple[Weights, Weights]) -> None:
    """After a history of changes the ranges are in pieces; the share that moves is still the least there can be."""
    weights = [*one, *two]
    known = {version for each in weights for version in each}
    steps = [{version: each.get(version, 0) for version in sorted(known)} for each in weights]
    current = service(steps[0])
    for before, after in pairwise(steps):
        changed = service(after, current)
        pairs = zip(met(current, FEW), met(changed, FEW), strict=True)
        moved = sum(left != entered for left, entered in pairs) / len(FEW)
        least = 1 - sum(min(before[version], after[version]) for version in known) / BUCKETS
        assert abs(moved - least) < 0.035  # five thousand users stand for all
        current = changed


def test_services_split_the_same_users_in_different_ways() -> None:
    halves = {"1": 5_000, "2": 5_000}
    one, two = (met(service(halves, salt=salt), FEW) for salt in ("01" * 16, "02" * 16))
    same = sum(a == b for a, b in zip(one, two, strict=True)) / len(FEW)
    assert 0.45 < same < 0.55


def test_every_replica_and_every_restart_gives_the_same(tmp_path: Path) -> None:
    bound = service({"1": 3_000, "2": 3_000, "3": 4_000}, service({"1": 9_000, "4": 1_000}))
    store = FileControlStore(tmp_path)
    store.compare_and_set(0, State(services={"s": bound}))
    expected = met(bound, FEW)
    for replica in (store, FileControlStore(tmp_path), FileControlStore(tmp_path)):
        assert met(replica.read().services["s"], FEW) == expected


def test_a_rollback_brings_everybody_back() -> None:
    first = service({"1": 8_000, "2": 2_000})
    second = service({"1": 5_000, "2": 2_500, "3": 2_500}, first)
    assert second.previous is not None
    back = msgspec.structs.replace(second, current=second.previous)
    assert met(back, FEW) == met(first, FEW)
