"""What a look at a node finds: one line each, with its cause."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum

import msgspec

TIMEOUT_S = 3.0
"""For anything that is asked over a network."""
MAX_SKEW_S = 2.0
"""Clocks further apart make freshness and holds end too early or too late."""


class Level(Enum):
    """`WARNING`: it works, but not as it should. `ERROR`: something will be refused."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """`subject`: the setting, port, party or model that it is about."""

    level: Level
    subject: str
    text: str


Findings = AsyncIterator[Finding]


def skew(subject: str, skew_s: float) -> Finding:
    if abs(skew_s) > MAX_SKEW_S:
        direction = "ahead of" if skew_s > 0 else "behind"
        return Finding(Level.WARNING, subject, f"its clock is {abs(skew_s):.1f} s {direction} ours: synchronise")
    return Finding(Level.OK, subject, f"clocks agree within {max(abs(skew_s), 0.001):.3f} s")
