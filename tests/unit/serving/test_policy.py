from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.lifecycle import ModelState
from serving.policy import Action, Resident, Step, decide, evictions
from serving.pool import ModelId

A, B = ModelId("a", "1"), ModelId("b", "1")
S = ModelState

# state of A (None: never seen), wanted, asked for again -> what happens
TABLE = [
    (None, True, False, Step.LOAD),
    (S.NEW, True, False, Step.LOAD),
    (S.UNLOADED, True, False, Step.LOAD),
    (S.FAILED, True, False, None),
    (S.FAILED, True, True, Step.LOAD),
    (S.LOADING, True, True, None),
    (S.READY, True, True, None),
    (S.DRAINING, True, True, None),
    (None, False, False, None),
    (S.NEW, False, False, None),
    (S.LOADING, False, False, None),
    (S.READY, False, False, Step.UNLOAD),
    (S.READY, False, True, Step.UNLOAD),
    (S.DRAINING, False, False, None),
    (S.UNLOADED, False, False, None),
    (S.FAILED, False, False, None),
    (S.FAILED, False, True, None),
]


@pytest.mark.parametrize(("state", "wanted", "again", "step"), TABLE)
def test_decisions(state: ModelState | None, wanted: bool, again: bool, step: Step | None) -> None:
    actions = decide({A} if wanted else set(), {} if state is None else {A: state}, {A} if again else set())
    assert actions == ([] if step is None else [Action(A, step)])


def test_the_order_is_fixed() -> None:
    actual = {B: S.READY, A: S.READY}
    assert decide({ModelId("d", "1"), ModelId("c", "1")}, actual) == [
        Action(ModelId("c", "1"), Step.LOAD),
        Action(ModelId("d", "1"), Step.LOAD),
        Action(A, Step.UNLOAD),
        Action(B, Step.UNLOAD),
    ]


RESIDENTS = st.lists(
    st.builds(
        Resident,
        model=st.uuids().map(lambda name: ModelId(str(name), "1")),
        bytes=st.integers(1, 100),
        used=st.integers(1, 10_000),
        pinned=st.booleans(),
    ),
    unique_by=(lambda one: one.model, lambda one: one.used),
    max_size=12,
)


@given(RESIDENTS, st.integers(1, 600))
def test_what_goes_is_enough_unpinned_the_oldest_and_no_more_than_needed(
    residents: list[Resident], lacking: int
) -> None:
    by_model = {one.model: one for one in residents}
    chosen = [by_model[model] for model in evictions(residents, lacking)]
    free = [one for one in residents if not one.pinned]
    assert bool(chosen) == (sum(one.bytes for one in free) >= lacking)
    if chosen:
        assert sum(one.bytes for one in chosen) >= lacking > sum(one.bytes for one in chosen[:-1])
        kept = [one.used for one in free if one not in chosen]
        assert [one.used for one in chosen] == sorted(one.used for one in chosen)
        assert all(one in free and all(one.used < used for used in kept) for one in chosen)


def test_nothing_goes_when_nothing_is_lacking() -> None:
    assert evictions([Resident(A, 10, 1, False)], 0) == []
