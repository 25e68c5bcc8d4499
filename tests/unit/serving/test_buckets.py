from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.buckets import Ranges, assign
from serving.routing import BUCKETS


def buckets(ranges: Ranges) -> set[int]:
    return {position for low, high in ranges for position in range(low, high)}


@st.composite
def weights(draw: st.DrawFn, variants: int) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=variants - 1, max_size=variants - 1)))
    return [high - low for low, high in zip([0, *cuts], [*cuts, BUCKETS], strict=True)]


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Weights of a service before and after; 0 is a variant that is not there."""
    variants = draw(st.integers(1, 5))
    return draw(weights(variants)), draw(weights(variants))


@settings(max_examples=40)
@given(changes())
def test_every_bucket_has_one_owner_and_the_fewest_move(change: tuple[list[int], list[int]]) -> None:
    before, after = change
    old = assign([()] * len(before), before)
    new = assign(old, after)
    owned = [buckets(ranges) for ranges in new]
    assert [len(mine) for mine in owned] == after
    assert set().union(*owned) == set(range(BUCKETS))
    stayed = sum(len(buckets(a) & b) for a, b in zip(old, owned, strict=True))
    assert stayed == sum(map(min, before, after))


@settings(max_examples=40)
@given(changes())
def test_a_variant_that_shrinks_gives_up_its_highest(change: tuple[list[int], list[int]]) -> None:
    before, after = change
    old = assign([()] * len(before), before)
    for mine, left, weight in zip(old, assign(old, after), after, strict=True):
        if weight <= len(buckets(mine)):
            assert buckets(left) == set(sorted(buckets(mine))[:weight])


@settings(max_examples=40)
@given(changes())
def test_ranges_rise_and_do_not_touch(change: tuple[list[int], list[int]]) -> None:
    before, after = change
    for ranges in assign(assign([()] * len(before), before), after):
        edges = [edge for interval in ranges for edge in interval]
        assert edges == sorted(set(edges))


@pytest.mark.parametrize(
    ("before", "weights", "after"),
    [
        ([()], [10_000], [((0, 10_000),)]),
        ([((0, 10_000),), ()], [9_000, 1_000], [((0, 9_000),), ((9_000, 10_000),)]),
        ([((0, 9_000),), ((9_000, 10_000),)], [5_000, 5_000], [((0, 5_000),), ((5_000, 10_000),)]),
        # 2 gives up its highest, 1 takes them: its ranges are no longer one interval
        ([((0, 5_000),), ((5_000, 10_000),)], [9_000, 1_000], [((0, 5_000), (6_000, 10_000)), ((5_000, 6_000),)]),
    ],
)
def test_examples(before: list[Ranges], weights: list[int], after: list[Ranges]) -> None:
    assert assign(before, weights) == after


def test_the_same_weights_move_nobody() -> None:
    old = assign([(), (), ()], [3_333, 3_333, 3_334])
    assert assign(old, [3_333, 3_333, 3_334]) == old
