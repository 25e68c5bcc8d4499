"""The protocol's log settings: four switches, of which each level of ours is a setting of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import InvalidRequestError
from serving.publishing import Publishing
from serving.settings import LogLevel

Values = Mapping[str, bool | int | str]

VERBOSE = "log_verbose_level"
FIXED: Values = {"log_file": "", "log_format": "default"}
"""Where lines go and how they look is said in the settings file alone."""
LEVELS: Mapping[LogLevel, Values] = {
    LogLevel.DEBUG: {"log_info": True, "log_warning": True, "log_error": True, VERBOSE: 1},
    LogLevel.INFO: {"log_info": True, "log_warning": True, "log_error": True, VERBOSE: 0},
    LogLevel.WARNING: {"log_info": False, "log_warning": True, "log_error": True, VERBOSE: 0},
    LogLevel.ERROR: {"log_info": False, "log_warning": False, "log_error": True, VERBOSE: 0},
}
_ORDER = tuple(LEVELS)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Of one node, and of all its replicas. `default`: the level of the settings file."""

    publishing: Publishing
    default: LogLevel

    @property
    def level(self) -> LogLevel:
        chosen = self.publishing.state().log_level
        return LogLevel(chosen) if chosen else self.default

    @property
    def shown(self) -> Values:
        return {**LEVELS[self.level], **FIXED}

    def wanted(self, given: Values) -> LogLevel:
        """The nearest level that is as `given`. Raises InvalidRequestError."""
        asked = {name: _checked(name, value) for name, value in given.items()}
        fitting = [level for level, values in LEVELS.items() if asked.items() <= {**values, **FIXED}.items()]
        if not fitting:
            raise InvalidRequestError(
                "no log level is like this: errors are always logged, warnings where info is, both where it is verbose"
            )
        here = _ORDER.index(self.level)
        return min(fitting, key=lambda level: abs(_ORDER.index(level) - here))

    async def change(self, given: Values) -> None:
        await self.publishing.set_log_level(self.wanted(given))


def _checked(name: str, value: bool | int | str) -> bool | int | str:
    """As `LEVELS` and `FIXED` have it: every level of verbosity is one."""
    if name in FIXED:
        if value != FIXED[name]:
            raise InvalidRequestError(f"log setting {name!r} is that of the settings file")
        return value
    if name not in LEVELS[LogLevel.INFO]:
        raise InvalidRequestError(f"unknown log setting {name!r}")
    if name != VERBOSE:
        if not isinstance(value, bool):
            raise InvalidRequestError(f"log setting {name!r} is true or false")
        return value
    if isinstance(value, bool | str) or value < 0:
        raise InvalidRequestError(f"log setting {name!r} is a whole number from 0")
    return min(value, 1)
