"""When a cron expression comes, by the clock of a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from croniter import croniter

EXAMPLE = "0 3 * * *"


def check_cron(expression: str) -> None:
    """Raises ValueError unless it has the five fields of cron, and comes at all."""
    fields = expression.split()
    # croniter also knows fields that a hash (H) or chance (R) fills: replicas would not agree on a time.
    if len(fields) != 5 or any(field[0] in "HhRr" for field in fields):
        raise ValueError(f"{expression!r} is no cron expression of five fields, such as {EXAMPLE!r}")
    try:
        _cron(expression, datetime(2000, 1, 1, tzinfo=UTC)).get_next()
    except ValueError as error:
        raise ValueError(f"{expression!r} is no time of cron's: {error}") from None


def _cron(expression: str, at: datetime) -> croniter:
    from croniter import croniter  # noqa: PLC0415 - most nodes have no timetable

    return croniter(expression, at)


def check_zone(name: str) -> None:
    """Raises ValueError."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone, such as 'Europe/Berlin' or 'UTC'") from None


class Timetable:
    """`expression` and `zone` passed the checks. Times are whole Unix seconds.

    A time that the clock leaves out in spring is its next full hour; one that it shows twice in autumn comes twice.
    """

    def __init__(self, expression: str, zone: str) -> None:
        self._expression = expression
        self._zone = ZoneInfo(zone)

    def latest(self, now_s: float) -> int:
        """The last time that has come, this second's too."""
        after = datetime.fromtimestamp(int(now_s) + 1, self._zone)
        return int(_cron(self._expression, after).get_prev(float))

    def next(self, now_s: float) -> int:
        """The first time that has not come yet."""
        return int(_cron(self._expression, datetime.fromtimestamp(int(now_s), self._zone)).get_next(float))
