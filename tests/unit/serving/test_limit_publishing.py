"""How many names may have limits of their own."""

from __future__ import annotations

import pytest

from serving.control import MemoryControlStore, State, WantedLimit
from serving.errors import LimitError
from serving.limit_kind import LimitKind
from serving.limit_publishing import MAX_LIMITS, LimitPublishing
from serving.replicas import Replicas
from serving.settings import RateLimit
from serving.wanted import Wanted

LIMIT = RateLimit(per_s=1)
NAMES = [f"I_{number}" for number in range(MAX_LIMITS)]


KINDS = [LimitKind.CALLER, LimitKind.RESOURCE]


@pytest.fixture
def store() -> MemoryControlStore:
    """As full as may be."""
    store = MemoryControlStore()
    named = {name: WantedLimit(per_s=5) for name in NAMES}
    store.compare_and_set(0, State(limits={kind.value: named for kind in KINDS}))
    return store


@pytest.fixture
def limits(store: MemoryControlStore) -> LimitPublishing:
    return LimitPublishing(Wanted(store), Replicas("bank", "r", store))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_limit_beyond_the_bound_is_refused_until_others_are_cleared(
    limits: LimitPublishing, store: MemoryControlStore, kind: LimitKind
) -> None:
    full = store.read()
    with pytest.raises(LimitError) as refused:
        await limits.set(kind, "I_more", LIMIT)
    assert str(refused.value) == (
        f"limits are set for 1000 names of the kind {kind.value}, as many as may be: clear some that are not "
        f"needed, as `tessera limit clear {kind.value} NAME` does"
    )
    assert store.read() == full
    await limits.set(kind, NAMES[0], LIMIT)
    assert limits.wanted(kind, NAMES[0]) == WantedLimit(per_s=1)
    await limits.set(LimitKind.SERVICE, "s", LIMIT)
    assert await limits.clear(kind, NAMES[1])
    await limits.set(kind, "I_more", LIMIT)
    assert len(store.read().limits[kind.value]) == MAX_LIMITS
