"""What the processes of a node end with."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """REFUSED: the settings, a port or a file will not do; one line on standard error says which."""

    OK = 0
    FAILED = 1
    REFUSED = 2
