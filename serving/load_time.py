"""The one deadline of a load, whatever the load has to wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

_MARGIN_S, _MARGIN_SHARE = 0.5, 0.1
"""Of the caller's time that a load leaves, so that what came of it arrives in time."""


@dataclass(frozen=True, slots=True)
class LoadTime:
    """`ends` in loop time, `within_s` after the load began; `whose`: who has set it."""

    ends: float
    within_s: float
    whose: str

    @classmethod
    def of(cls, limit_s: float, caller_s: float | None = None) -> LoadTime:
        """From now on: the node's own limit, or the rest of the caller's time when that is less."""
        now = asyncio.get_running_loop().time()
        granted_s = limit_s if caller_s is None else caller_s - min(_MARGIN_S, _MARGIN_SHARE * caller_s)
        if granted_s < limit_s:
            return cls(now + granted_s, granted_s, "the caller's deadline")
        return cls(now + limit_s, limit_s, "limits.load_timeout_s")

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends - asyncio.get_running_loop().time())

    def late(self, name: str) -> str:
        """What is said of a load that took longer."""
        return f"{name} did not load within {self.within_s:.3g} s ({self.whose})"
