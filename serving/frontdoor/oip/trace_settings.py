"""The protocol's trace settings: which calls are traced. Where spans go is said in the settings file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from serving.control import TraceChoice
from serving.errors import ConflictError, InvalidRequestError
from serving.publishing import Publishing
from serving.settings import TraceSettings

Values = Mapping[str, Sequence[str]]
"""An empty one is none: as the settings file has it."""

LEVEL, RATE, COUNT = "trace_level", "trace_rate", "trace_count"
OFF, TIMESTAMPS = "OFF", "TIMESTAMPS"
FIXED: Values = {"trace_mode": ("opentelemetry",), "trace_file": ("",), "log_frequency": ("0",)}
_UNLIMITED = -1
_MOST = 1 << 31


@dataclass(frozen=True, slots=True)
class TraceChoices:
    """Of one node, and of all its replicas. `settings`: what stands where nothing was chosen."""

    publishing: Publishing
    settings: TraceSettings

    @property
    def shown(self) -> Values:
        """A rate is one call in so many; 0: only those that come with a context."""
        chosen = self.publishing.state().traces
        share = self.settings.share if chosen.share is None else chosen.share
        is_on = bool(self.settings.endpoint) and chosen.is_on is not False
        return {
            LEVEL: (TIMESTAMPS if is_on else OFF,),
            RATE: (str(round(1 / share) if share else 0),),
            COUNT: (str(_UNLIMITED if chosen.count is None else chosen.count),),
            **FIXED,
        }

    def wanted(self, given: Values) -> TraceChoice:
        """Raises InvalidRequestError; ConflictError where there is no collector."""
        changes: dict[str, bool | float | None] = {}
        for name, values in given.items():
            if name not in FIXED:
                changes |= _change(name, values)
            elif values and tuple(values) != FIXED[name]:
                raise InvalidRequestError(f"trace setting {name!r} is {FIXED[name][0]!r} here, and nothing else")
        if changes and not self.settings.endpoint:
            raise ConflictError("this node sends no traces: its settings file names no traces.endpoint")
        return msgspec.structs.replace(self.publishing.state().traces, **changes)

    async def change(self, given: Values) -> None:
        await self.publishing.set_traces(self.wanted(given))


def _change(name: str, values: Sequence[str]) -> dict[str, bool | float | None]:
    """Of TraceChoice."""
    if name == LEVEL:
        return {"is_on": _is_on(values)}
    if name == RATE:
        rate = _number(name, values, 0)
        return {"share": None if rate is None else 1 / rate if rate else 0.0}
    if name == COUNT:
        count = _number(name, values, _UNLIMITED)
        return {"count": None if count == _UNLIMITED else count}
    raise InvalidRequestError(f"unknown trace setting {name!r}")


def _is_on(values: Sequence[str]) -> bool | None:
    if not values:
        return None
    if set(values) in ({OFF}, {TIMESTAMPS}):
        return OFF not in values
    raise InvalidRequestError(f"trace setting {LEVEL!r} is {OFF} or {TIMESTAMPS}: spans hold no tensors")


def _number(name: str, values: Sequence[str], least: int) -> int | None:
    """None when there is none."""
    if not values:
        return None
    try:
        [number] = [int(value) for value in values]
    except ValueError:
        number = least - 1
    if not least <= number < _MOST:
        raise InvalidRequestError(f"trace setting {name!r} is one whole number from {least}")
    return number
