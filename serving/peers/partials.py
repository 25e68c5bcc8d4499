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
    `retry_after_s`: when a call may pass that was refused for want of room."""

    party: str
    values: Partial
    statuses: Sequence[PartyStatus]
    levels: Sequence[CacheLevel]
    reason: str = ""
    retry_after_s: float | None = None

    @property
    def complete(self) -> bool:
        return not any(self.statuses)
