import json
import logging

import pytest

from serving.settings import LogFormat, LogLevel
from serving.telemetry import logs

pytestmark = pytest.mark.usefixtures("restored_logging")


def test_json_lines_carry_message_and_traceback(capsys):
    logs.set_up(LogLevel.INFO, LogFormat.JSON)
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("serving.pool").exception("cannot load %s", "lr/v1")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("error", "serving.pool", "cannot load lr/v1")
    assert line["error"].endswith("KeyError: 'gone'")
    assert line["time"].endswith("Z")


def test_plain_lines_respect_the_level(capsys):
    logs.set_up(LogLevel.WARNING, LogFormat.PLAIN)
    logging.getLogger("serving").info("quiet")
    logging.getLogger("serving").warning("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING serving: loud")


def test_a_second_set_up_replaces_the_first(capsys):
    logs.set_up(LogLevel.INFO, LogFormat.PLAIN)
    logs.set_up(LogLevel.DEBUG, LogFormat.PLAIN)
    logging.getLogger("serving").debug("once")
    assert capsys.readouterr().err.count("once") == 1


def test_json_lines_carry_fields_of_their_own(capsys):
    logs.set_up(LogLevel.INFO, LogFormat.JSON)
    logging.getLogger("serving").info("request", extra={"fields": {"service": "s", "rows": 2}})
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["service"], line["rows"]) == ("request", "s", 2)
