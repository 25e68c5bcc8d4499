from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from serving.timetable import Timetable, check_cron, check_zone

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@pytest.mark.parametrize("expression", ["0 3 * * *", "*/15 1-4 * * mon-fri", "30 2 1,15 * *"])
def test_cron_expressions_are_taken(expression: str) -> None:
    check_cron(expression)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("nightly", "'nightly' is no cron expression of five fields, such as '0 3 \\* \\* \\*'"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("R 3 * * *", "five fields"),
        ("H 3 * * *", "five fields"),
        ("61 3 * * *", "is no time of cron's: .*out of range"),
        ("0 0 31 2 *", "is no time of cron's: failed to find next date"),
    ],
)
def test_what_is_no_time_is_refused_with_the_reason(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_cron(expression)


@pytest.mark.parametrize("name", ["Europe/Bonn", "", "/etc/passwd", "../UTC", "Europe"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no time zone, such as"):
        check_zone(name)


def test_time_zones_are_known() -> None:
    for name in ("UTC", BERLIN, "America/New_York"):
        check_zone(name)


def test_the_second_itself_has_come() -> None:
    table = Timetable("0 3 * * *", "UTC")
    three = at("2026-06-10 03:00")
    assert table.latest(three - 0.001) == three - 86_400
    assert table.latest(three) == table.latest(three + 0.5) == table.latest(three + 86_399) == three
    assert table.next(three - 0.001) == table.next(three - 1) == three
    assert table.next(three) == table.next(three + 0.5) == three + 86_400


def test_times_are_those_of_the_zone() -> None:
    table = Timetable("0 3 * * *", BERLIN)
    assert table.latest(at("2026-01-10 12:00")) == at("2026-01-10 02:00")
    assert table.latest(at("2026-06-10 12:00")) == at("2026-06-10 01:00")


def test_a_time_that_spring_leaves_out_comes_once() -> None:
    table = Timetable("30 2 * * *", BERLIN)
    skipped = table.next(at("2026-03-29 00:00", BERLIN))
    assert skipped == at("2026-03-29 03:00", BERLIN)
    assert table.latest(skipped + 3_600) == skipped
    assert table.next(skipped) == at("2026-03-30 02:30", BERLIN)


def test_a_time_that_autumn_shows_twice_comes_twice() -> None:
    table = Timetable("30 2 * * *", BERLIN)
    first = table.next(at("2026-10-25 00:00", BERLIN))
    assert first == at("2026-10-25 00:30")
    assert table.next(first) == first + 3_600
    assert table.latest(first + 3_600) == first + 3_600
