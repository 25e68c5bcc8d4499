"""Stops asking a store that does not answer, and asks again now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

FAULTS_TO_OPEN = 3
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class Circuit:
    """Opens after a few faults in a row. While open, one attempt is let through per pause; the pause doubles with each
    that fails, and the first that succeeds closes it. Says once that `name` is down and once that it is back."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._faults = 0
        self._pause_s = 0.0
        self._retry_at = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._pause_s > 0

    def allows(self) -> bool:
        """Whether to try now. An attempt that never reports back blocks nothing: the pause over, another may try."""
        if not self._pause_s:
            return True
        now = self._clock()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause_s
        self._trying = True
        return True

    def succeeded(self) -> None:
        if self._pause_s:
            logger.info("%s is back", self._name)
        self._faults = 0
        self._pause_s = 0.0

    def failed(self, reason: str) -> None:
        """Of attempts that began before it opened, the failure is no news."""
        if not self._pause_s:
            self._faults += 1
            if self._faults >= FAULTS_TO_OPEN:
                logger.warning("%s is down, going on without it: %s", self._name, reason)
                self._pause(FIRST_PAUSE_S)
        elif self._trying:
            self._pause(min(2 * self._pause_s, LONGEST_PAUSE_S))

    def _pause(self, pause_s: float) -> None:
        self._trying = False
        self._pause_s = pause_s
        self._retry_at = self._clock() + pause_s
