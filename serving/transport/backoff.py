"""The pause between attempts to connect (grpc/doc/connection-backoff.md): growing, bounded, and never in step."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom

_FIRST_S = 0.1
_GROWTH = 1.6
_JITTER = 0.2

_uniform = SystemRandom().uniform


class Backoff:
    """Counts failures in a row. `max_s` bounds every pause, jitter included."""

    def __init__(
        self, max_s: float, clock: Callable[[], float], uniform: Callable[[float, float], float] = _uniform
    ) -> None:
        self._max_s = max_s
        self._clock = clock
        self._uniform = uniform
        self._pause_s = 0.0
        self._over_at = 0.0

    def failed(self) -> None:
        self._pause_s = min(self._max_s, max(_FIRST_S, self._pause_s * _GROWTH))
        jittered_s = self._pause_s * self._uniform(1 - _JITTER, 1 + _JITTER)
        self._over_at = self._clock() + min(self._max_s, jittered_s)

    def succeeded(self) -> None:
        self._pause_s = self._over_at = 0.0

    def left_s(self) -> float:
        """How long to leave the target alone; zero when it may be tried."""
        return max(0.0, self._over_at - self._clock())
