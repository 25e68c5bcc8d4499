from __future__ import annotations

import pytest

from serving.lifecycle import ModelState
from serving.policy import Action, Step, decide
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
