"""FATE-Serving's figures by resource: calls of an interface (`I_inference`), rows of a model (`M_...`), whether callers
ask for them or, at a host, other parties. Its flow rules are limits of the kind `resource`."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from serving.errors import LimitError
from serving.limits import Gates
from serving.telemetry.worker_files import Others, Told, nobody

KEPT_S = 600


@dataclass(slots=True)
class Second:
    """Of one resource: let in, answered, refused by a rule, failed."""

    passed: int = 0
    succeeded: int = 0
    blocked: int = 0
    failed: int = 0

    def add(self, other: Second) -> None:
        self.passed += other.passed
        self.succeeded += other.succeeded
        self.blocked += other.blocked
        self.failed += other.failed


class Flow:
    """`gates`: what may be asked of resources; `clock` is Unix seconds."""

    def __init__(self, gates: Gates, clock: Callable[[], float] = time.time) -> None:
        self._gates = gates
        self.others: Others = nobody
        """Figures of the other workers, as `encoded`."""
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

    async def between(self, begin_ms: int, end_ms: int, resource: str) -> list[tuple[int, str, Second]]:
        """Seconds (in milliseconds) of one resource, or of all when it is "", in order: of all workers together."""
        total: dict[tuple[int, str], Second] = {}
        for told in (self._seconds, *map(_seconds, await self.others())):
            for second, resources in told.items():
                for name, one in resources.items():
                    if begin_ms <= 1_000 * second <= end_ms and resource in {"", name}:
                        total.setdefault((1_000 * second, name), Second()).add(one)
        return [(at_ms, name, one) for (at_ms, name), one in sorted(total.items())]

    def encoded(self) -> bytes:
        """For the other workers."""
        return msgspec.json.encode(self._seconds)

    def _now(self, resource: str) -> Second:
        second = int(self._clock())
        if second not in self._seconds:
            self._seconds[second] = {}
            while len(self._seconds) > KEPT_S:
                self._seconds.popitem(last=False)
        return self._seconds[second].setdefault(resource, Second())


_Seconds = dict[int, dict[str, Second]]
_DECODER = msgspec.json.Decoder(_Seconds)


def _seconds(told: Told) -> _Seconds:
    with suppress(msgspec.MsgspecError):  # of another version
        return _DECODER.decode(told.said)
    return {}
