"""Logs on standard error: lines for people, or one JSON object a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from serving.settings import LogFormat, LogLevel

if TYPE_CHECKING:
    from serving.control import State

logger = logging.getLogger(__name__)

_LEVELS = {level.value for level in LogLevel}


class JsonFormatter(logging.Formatter):
    """Keys: time (UTC), level, logger, process, message, and error with the traceback; then the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        line |= getattr(record, "fields", {})
        return msgspec.json.encode(line).decode()


def set_up(level: LogLevel, form: LogFormat) -> None:
    """Replaces the handlers of the root logger."""
    handler = logging.StreamHandler()
    if form is LogFormat.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    for chatty in ("grpc", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def set_level(level: LogLevel) -> None:
    logging.getLogger().setLevel(level.value.upper())


def follow_level(settings: LogLevel) -> Callable[[State], None]:
    """Keeps to what the wanted state says, else to the settings."""
    followed = [""]

    def follow(state: State) -> None:
        if state.log_level != followed[0]:
            followed[0] = state.log_level
            level = LogLevel(state.log_level) if state.log_level in _LEVELS else settings
            set_level(level)
            logger.warning("the log level is %s", level.value)

    return follow
