"""How much a peer may ask that costs us work and brings it nothing: resets, pings, settings, empty frames.

Bounds rapid reset (CVE-2023-44487) and its kin. Answered calls earn patience back, and so does time.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.transport.frames import ConnectionFault, ErrorCode

_FULL = 2000.0
_PER_SECOND = 500.0


class Patience:
    __slots__ = ("_at", "_clock", "_left")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = _FULL
        self._at = clock()

    def spend(self, cost: int = 1) -> None:
        """Raises ConnectionFault when none is left."""
        self._left -= cost
        if self._left < 0:
            now = self._clock()
            self._left = min(_FULL, self._left + (now - self._at) * _PER_SECOND)
            self._at = now
            if self._left < 0:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames to no purpose")

    def regain(self) -> None:
        if self._left < _FULL:
            self._left += 1
