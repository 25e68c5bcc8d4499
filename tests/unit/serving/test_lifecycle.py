from __future__ import annotations

from itertools import product

import pytest

from serving.lifecycle import Lifecycle, ModelState, advance
from serving.pool import ModelId

S = ModelState
LEGAL = {
    (S.NEW, S.LOADING),
    (S.LOADING, S.READY),
    (S.LOADING, S.FAILED),
    (S.READY, S.DRAINING),
    (S.DRAINING, S.UNLOADED),
    (S.UNLOADED, S.LOADING),
    (S.FAILED, S.LOADING),
}


@pytest.mark.parametrize(("before", "after"), list(product(S, S)))
def test_only_legal_transitions_happen(before: ModelState, after: ModelState) -> None:
    current = Lifecycle(ModelId("m", "1"), before, 10.0)
    if (before, after) in LEGAL:
        assert advance(current, after, 20.0, "why") == Lifecycle(ModelId("m", "1"), after, 20.0, "why")
    else:
        with pytest.raises(RuntimeError, match=f"m/1 cannot go from {before.name} to {after.name}"):
            advance(current, after, 20.0)


def test_a_reason_does_not_outlive_its_state() -> None:
    life = Lifecycle(ModelId("m", "1"), S.NEW, 0.0)
    for step, state in enumerate((S.LOADING, S.FAILED, S.LOADING, S.READY)):
        life = advance(life, state, step, "broken" if state is S.FAILED else "")
    assert (life.state, life.since_s, life.reason) == (S.READY, 3, "")
