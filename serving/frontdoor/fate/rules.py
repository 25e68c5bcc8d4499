"""FATE-Serving's flow rules and figures: calls a second of an interface (`I_inference`), rows of a model (`M_...`)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from serving.errors import LimitError
from serving.limits import Gate
from serving.settings import RateLimit

KEPT_S = 600


@dataclass(slots=True)
class Second:
    """Of one resource: let in, answered, refused by a rule, failed."""

    passed: int = 0
    succeeded: int = 0
    blocked: int = 0
    failed: int = 0


class Flow:
    """`rules`: calls or rows a second by resource, as they are now; `clock` is Unix seconds, `timer` monotonic ones."""

    def __init__(
        self,
        rules: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._timer = timer
        self._gates: dict[str, tuple[float, Gate]] = {}
        self._seconds: OrderedDict[int, dict[str, Second]] = OrderedDict()

    def take(self, resource: str, count: int) -> None:
        """Raises LimitError when the rule of this resource lets no more in."""
        rate = self._rules().get(resource)
        if rate is None:
            return
        if rate <= 0:
            raise LimitError(f"{resource} is closed by a flow rule")
        known = self._gates.get(resource)
        if known is None or known[0] != rate:
            known = self._gates[resource] = (rate, Gate(resource, RateLimit(per_s=rate), self._timer))
        known[1].take(count)

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
