"""Warm-up of the remote caches: for each user the own variant, and the peer leg only, for at night the guest has no
features."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from apps.app import PartyStatus
from serving.errors import InvalidRequestError, LimitError
from serving.peers.remote import RemotePartials, Warmed
from serving.pool import ModelId, ModelPool
from serving.routing import Address, RouteTable

TIMEOUT_S = 30.0
"""Of one batch, when the caller gives no time: nobody waits for it."""

REFUSES = "answers for no more of the users: its query budget is spent, or they are not on its list"


class PrefetchOutcome(IntEnum):
    """Of one user; of several hosts the worst, which is the largest. Wire values."""

    CACHED = 0
    FETCHED = 1
    NOT_FOUND = 2
    MISSING = 3
    FAILED = 4
    REFUSED = 5


_OUTCOMES = {
    PartyStatus.OK: PrefetchOutcome.FETCHED,
    PartyStatus.NOT_FOUND: PrefetchOutcome.NOT_FOUND,
    PartyStatus.REJECTED: PrefetchOutcome.REFUSED,
    None: PrefetchOutcome.MISSING,
}


@dataclass(frozen=True, slots=True)
class Prefetched:
    """One outcome per user; `reason`: what hosts said that did not answer."""

    outcomes: Sequence[PrefetchOutcome]
    reason: str = ""

    def count(self, outcome: PrefetchOutcome) -> int:
        return sum(one is outcome for one in self.outcomes)


class Prefetching:
    """`max_rows` in one call. `clock` is monotonic seconds, as deadlines are."""

    def __init__(
        self,
        routes: RouteTable,
        pool: ModelPool,
        remote: RemotePartials,
        max_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._remote = remote
        self.max_rows = max_rows
        self._clock = clock

    async def prefetch(
        self, address: Address, user_ids: Sequence[str], remaining_s: float | None = None, dry_run: bool = False
    ) -> Prefetched:
        """Raises InvalidRequestError, LimitError, and what routing and the pool raise for an address."""
        if not user_ids or "" in user_ids:
            raise InvalidRequestError("the call names no users, or an empty one")
        if len(user_ids) > self.max_rows:
            raise LimitError(f"{len(user_ids)} users in one call, the limit is {self.max_rows}")
        deadline = self._clock() + (TIMEOUT_S if remaining_s is None else remaining_s)
        outcomes = [PrefetchOutcome.CACHED] * len(user_ids)
        reasons: set[str] = set()
        for model, rows in self._by_model(address, user_ids).items():
            users = [user_ids[row] for row in rows]
            for party, warmed in await self._warm(model, users, deadline, dry_run):
                for row, outcome in zip(rows, _outcomes(warmed), strict=True):
                    outcomes[row] = max(outcomes[row], outcome)
                if warmed.reason or PartyStatus.REJECTED in warmed.statuses:
                    reasons.add(f"party {party!r}: {warmed.reason or REFUSES}")
        return Prefetched(outcomes, "; ".join(sorted(reasons)))

    def _by_model(self, address: Address, user_ids: Sequence[str]) -> dict[ModelId, list[int]]:
        routes = self._routes.current
        groups: dict[ModelId, list[int]] = {}
        for row, user_id in enumerate(user_ids):
            groups.setdefault(routes.target(address, user_id).model, []).append(row)
        return groups

    async def _warm(
        self, model: ModelId, users: Sequence[str], deadline: float, dry_run: bool
    ) -> list[tuple[str, Warmed]]:
        with self._pool.acquire(model) as handle:
            asked = [self._remote.warm(party, handle, users, deadline, dry_run) for party in handle.hosts]
            return list(zip(handle.hosts, await asyncio.gather(*asked), strict=True))


def _outcomes(warmed: Warmed) -> list[PrefetchOutcome]:
    asked = set(warmed.missing)
    return [
        PrefetchOutcome.CACHED
        if row not in asked and status is PartyStatus.OK
        else _OUTCOMES.get(status, PrefetchOutcome.FAILED)
        for row, status in enumerate(warmed.statuses)
    ]
