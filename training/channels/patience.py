"""Whether to try again after a failure, and when: pauses that double, until a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class Patience:
    """Counts from the first failure after a success. `clock` gives seconds and never goes back."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._failing_since: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def succeeded(self) -> None:
        self._failing_since = None
        self._pause_s = FIRST_PAUSE_S

    def pause_s(self) -> float | None:
        """How long to wait after this failure; None when it is time to give up."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        left_s = self._failing_since + self.limit_s - now
        if left_s <= 0:
            return None
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return min(pause_s, left_s)
