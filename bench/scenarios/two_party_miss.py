"""Every user is new, no cache helps: the host is asked, with and without the shared level (L3)."""

from __future__ import annotations

from collections.abc import Iterator

from bench.harness.figures import Row
from bench.harness.new_users import new_users
from bench.harness.stage import Case, Stage

_NO_L3 = "[cache]\nembedded = false\n"


def play(stage: Stage) -> Iterator[Row]:
    for name, guest in (("L3 off", _NO_L3), ("L3 on", "")):
        with stage.parties(guest=guest) as parties:
            yield from Case(stage, "two-party miss", name, parties).usual(new_users(stage, parties))
