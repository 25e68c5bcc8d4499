"""What one host contributes to one batch: while it is collected, and when it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.app import CacheLevel, PartyStatus
from loaders.loader import Partial, PartialSpec
from serving.cache.tier import Entry
from serving.pool import ModelHandle


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

    def row(self, row: int) -> HostPartials:
        """Of one row alone."""
        return HostPartials(
            self.party,
            self.values[row : row + 1],
            self.statuses[row : row + 1],
            self.levels[row : row + 1],
            self.reason if self.statuses[row] else "",
            self.retry_after_s,
            frozenset({0} if row in self.stand_ins else ()),
        )


Piece = tuple[Entry, CacheLevel]
"""One row's entry, and the level it came from; NONE: from the host."""


class Lookup:
    """A host's part of a batch while it is collected. `pieces`: what is known of each row, None where nothing is yet.
    `keys` are those of the remote caches."""

    __slots__ = ("handle", "keys", "party", "pieces", "reason", "retry_after_s", "user_ids", "wanted")

    def __init__(
        self,
        party: str,
        handle: ModelHandle,
        user_ids: Sequence[str],
        keys: Sequence[bytes],
        pieces: list[Piece | None],
    ) -> None:
        self.party = party
        self.handle = handle
        self.wanted: PartialSpec = handle.wanted[party]
        self.user_ids = user_ids
        self.keys = keys
        self.pieces = pieces
        self.reason = ""
        self.retry_after_s: float | None = None

    @classmethod
    def joined(cls, each: Sequence[Lookup]) -> Lookup:
        """Of batches of one party, as one."""
        first = each[0]
        users, keys = ([user for one in each for user in one.user_ids], [key for one in each for key in one.keys])
        return cls(first.party, first.handle, users, keys, [piece for one in each for piece in one.pieces])

    @property
    def is_whole(self) -> bool:
        return None not in self.pieces

    def missing(self) -> list[int]:
        """Rows of which nothing is known."""
        return [row for row, piece in enumerate(self.pieces) if piece is None]

    def take(self, rows: Sequence[int]) -> Lookup:
        """Some of the rows."""
        users, keys = [self.user_ids[row] for row in rows], [self.keys[row] for row in rows]
        taken = Lookup(self.party, self.handle, users, keys, [self.pieces[row] for row in rows])
        taken.reason, taken.retry_after_s = self.reason, self.retry_after_s
        return taken

    def fail(self, status: PartyStatus, reason: str) -> None:
        """All that is missing failed alike."""
        failed = (Entry(status, 0.0, 0.0, b""), CacheLevel.NONE)
        self.pieces = [failed if piece is None else piece for piece in self.pieces]
        self.reason = reason

    def partials(self) -> HostPartials:
        """When no row is missing any more."""
        pieces = [piece for piece in self.pieces if piece is not None]
        blank = self.wanted.blank_row
        values = self.wanted.unpack(b"".join([entry.payload or blank for entry, _ in pieces]), len(pieces))
        statuses = [entry.status for entry, _ in pieces]
        levels = [level for _, level in pieces]
        return HostPartials(self.party, values, statuses, levels, self.reason, self.retry_after_s)
