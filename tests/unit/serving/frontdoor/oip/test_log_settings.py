"""Log settings of the protocol as levels of the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.log_settings import LEVELS, LogSettings
from serving.settings import LogLevel
from tests.unit.serving.parties import running

DEBUG, INFO, WARNING, ERROR = LogLevel


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[LogSettings]:
    async with running("bank", tmp_path) as party:
        yield LogSettings(party.publishing, INFO)


async def test_the_settings_files_level_is_shown_until_it_is_changed(log: LogSettings) -> None:
    assert LogSettings(log.publishing, ERROR).level is ERROR
    await log.change({"log_verbose_level": 3})
    assert LogSettings(log.publishing, ERROR).level is DEBUG
    assert log.shown == {
        **{"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 1},
        **{"log_file": "", "log_format": "default"},
    }


@pytest.mark.parametrize("level", LogLevel)
async def test_what_is_shown_can_be_given_back(log: LogSettings, level: LogLevel) -> None:
    await log.change(LEVELS[level])
    assert log.level is level
    await log.change(log.shown)
    assert log.level is level


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        (DEBUG, {"log_info": False}, WARNING),
        (DEBUG, {"log_verbose_level": 0}, INFO),
        (DEBUG, {"log_warning": False}, ERROR),
        (ERROR, {"log_warning": True}, WARNING),
        (ERROR, {"log_info": True}, INFO),
        (WARNING, {"log_error": True}, WARNING),
        (WARNING, {"log_file": "", "log_format": "default"}, WARNING),
    ],
)
async def test_a_switch_leads_to_the_nearest_level(
    log: LogSettings, before: LogLevel, given: dict[str, Any], after: LogLevel
) -> None:
    await log.publishing.set_log_level(before)
    await log.change(given)
    assert log.level is after


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"log_error": False}, "no log level is like this"),
        ({"log_info": True, "log_warning": False}, "no log level is like this"),
        ({"log_info": False, "log_verbose_level": 1}, "no log level is like this"),
        ({"log_file": "/etc/passwd"}, "'log_file' is that of the settings file"),
        ({"log_format": "ISO8601"}, "'log_format' is that of the settings file"),
        ({"log_infos": True}, "unknown log setting 'log_infos'"),
        ({"log_info": 1}, "'log_info' is true or false"),
        ({"log_info": "true"}, "'log_info' is true or false"),
        ({"log_verbose_level": True}, "'log_verbose_level' is a whole number"),
        ({"log_verbose_level": -1}, "'log_verbose_level' is a whole number"),
        ({"log_verbose_level": "1"}, "'log_verbose_level' is a whole number"),
    ],
)
async def test_what_no_level_is_like_is_refused(log: LogSettings, given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        await log.change({**given})
    assert log.level is INFO
