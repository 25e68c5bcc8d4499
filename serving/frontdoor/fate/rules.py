"""FATE-Serving's figures by resource: calls of an interface (`I_inference`), rows of a model (`M_...`). Its flow rules
are limits of the kind `resource`."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serving.errors import LimitError
from serving.limits import Gates

KEPT_S = 600


@dataclass(slots=True)
class Second:
    """Of one resource: let in, answered, refused by a rule, failed."""

    passed: int = 0
    succeeded: int = 0
    blocked: int = 0
    failed: int = 0


class Flow:
    """`gates`: what may be asked of resources; `clock` is Unix seconds."""

    def __init__(self, gates: Gates, clock: Callable[[], float] = time.time) -> None:
        self._gates = gates
        self._clock = clock
        self._seconds: OrderedDict[int, dict[str, Second]] = OrderedDict()

    def take(self, resource: str, count: int) -> None:
        """Raises LimitError when the limit of this resource lets no more in."""
        gate = self._gates.of(resource)
        if gate is not None:
            gate.take(count)

    def succeeded(self, resource: str, count: int = 1) -> None:
        now = self._now(resource)
        now.passed += count
        now.succeeded += count

    def refused(self, resource: str, error: Exception, count: int = 1) -> None:
        now = self._now(resource)
        if isinstance(error, LimitError):
            now.blocked += count
        else:
            now.passed += count
            now.failed += count

    def between(self, begin_ms: int, end_ms: int, resource: str) -> Iterator[tuple[int, str, Second]]:
        """Seconds (in milliseconds) of one resource, or of all when it is "", in order."""
        for second, resources in self._seconds.items():
            if begin_ms <= 1_000 * second <= end_ms:
                yield from ((1_000 * second, name, one) for name, one in resources.items() if resource in {"", name})

    def _now(self, resource: str) -> Second:
        second = int(self._clock())
        if second not in self._seconds:
            self._seconds[second] = {}
            while len(self._seconds) > KEPT_S:
                self._seconds.popitem(last=False)
        return self._seconds[second].setdefault(resource, Second())
