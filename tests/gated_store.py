"""A control store that tests hold up and break."""

from __future__ import annotations

import errno
import threading

from serving.control import MemoryControlStore, State


class Gated(MemoryControlStore):
    """Writes wait while the gate is closed; the one numbered `fails` meets a full disk."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.writes = 0
        self.fails = fails

    def compare_and_set(self, expected_revision: int, state: State) -> State:
        self.writes += 1
        number = self.writes
        assert self.gate.wait(10)
        if number == self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().compare_and_set(expected_revision, state)
