"""Every user is new and four hosts are asked at the same time."""

from __future__ import annotations

from collections.abc import Iterator

from bench.harness.figures import Row
from bench.harness.new_users import new_users
from bench.harness.stage import Case, Stage

_HOSTS = 4


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties(hosts=_HOSTS) as parties:
        yield from Case(stage, "five-party miss", "L3 on", parties).usual(new_users(stage, parties))
