"""What one host contributes to one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.app import CacheLevel, PartyStatus
from loaders.loader import Partial


@dataclass(frozen=True, slots=True)
class HostPartials:
    """One host's answer for a batch, in the order asked: `values` as the guest wants them, blank where the status is
    not OK; one status and one level per row. `reason` is the public text of a failure of the whole call;
    `retry_after_s`: when a call may pass that was refused for want of room. `stand_ins`: failed rows in whose
    place something stands, by the policy of the service."""

    party: str
    values: Partial
    statuses: Sequence[PartyStatus]
    levels: Sequence[CacheLevel]
    reason: str = ""
    retry_after_s: float | None = None
    stand_ins: frozenset[int] = frozenset()

    @property
    def complete(self) -> bool:
        return not any(self.statuses)

    def failures(self) -> list[int]:
        """Rows that are not OK."""
        return [row for row, status in enumerate(self.statuses) if status]

    def usable(self, row: int) -> bool:
        return not self.statuses[row] or row in self.stand_ins
