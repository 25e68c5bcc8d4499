"""What a generator process is told and what it says: lines of JSON on its standard streams."""

from __future__ import annotations

import msgspec

from bench.load.plan import Plan
from bench.load.results import LoadResult


class Assignment(msgspec.Struct, frozen=True):
    """What one process is to do of a plan."""

    plan: Plan
    index: int
    of: int
    parent: int
    cpus: tuple[int, ...] = ()
    """It keeps to these; empty for any."""

    @property
    def connections(self) -> int:
        """Its part of the plan's connections, at least one."""
        whole, rest = divmod(self.plan.connections, self.of)
        return max(1, whole + (self.index < rest))


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Of one process, since the start of the measured part."""

    ok: int
    failed: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last line."""

    result: LoadResult


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The last line when the plan cannot be run."""

    reason: str


Line = Progress | Finished | Refused
