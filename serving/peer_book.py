"""The other parties as an operator looks at them: whether they answer, what they have loaded, what they may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.admission import Admission
from serving.errors import PeerUnavailableError
from serving.host import HalfState
from serving.peers.peer import Peer
from serving.peers.status import PeerStatus, refusal
from serving.pool import ModelId
from serving.publishing import Publishing
from serving.settings import PeerSettings, Purpose
from serving.transport import RpcError

TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Spending:
    """A query budget as it stands. `refused`: rows since the node began; `ends_s`: Unix time."""

    limit: int
    spent: int
    refused: int
    window_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class PeerView:
    """`problem`: why it does not answer. `status` and `halves` (of versions whose guest this party is) come from it;
    the rest is what it may do here. `users`: how many it may ask about, None for any."""

    party: str
    settings: PeerSettings
    problem: str
    status: PeerStatus | None
    halves: Mapping[ModelId, HalfState]
    purposes: Sequence[Purpose]
    users: int | None
    spending: Spending | None


class PeerBook:
    """`settings` by party, also of those that this one never calls; `peers` are those with an address."""

    def __init__(
        self,
        settings: Mapping[str, PeerSettings],
        peers: Mapping[str, Peer],
        admission: Admission,
        publishing: Publishing,
    ) -> None:
        self._settings = settings
        self._peers = peers
        self._admission = admission
        self._publishing = publishing

    async def look(self) -> list[PeerView]:
        """All at once, for at most `TIMEOUT_S`."""
        return list(await asyncio.gather(*(self._view(party) for party in sorted(self._settings))))

    async def _view(self, party: str) -> PeerView:
        models = self._shared(party)
        status, problem = await self._ask(party, models)
        guard = self._admission.guards.get(party)
        return PeerView(
            party=party,
            settings=self._settings[party],
            problem=problem,
            status=status,
            halves=dict(zip((model for model, _ in models), status.halves, strict=True)) if status else {},
            purposes=self._settings[party].purposes,
            users=len(guard.users) if guard is not None and guard.users is not None else None,
            spending=_spending(self._admission, party),
        )

    async def _ask(self, party: str, models: Sequence[tuple[ModelId, str]]) -> tuple[PeerStatus | None, str]:
        peer = self._peers.get(party)
        if peer is None:
            return None, "has no address in the settings"
        try:
            return await peer.status(models, TIMEOUT_S), ""
        except RpcError as error:
            return None, refusal(error)
        except PeerUnavailableError as error:
            return None, str(error)

    def _shared(self, party: str) -> list[tuple[ModelId, str]]:
        """Loaded versions that this party is guest of and `party` host, with their binding digests."""
        handles = [status.handle for status in self._publishing.models()]
        return [(one.id, one.artifact.binding_digest) for one in handles if one is not None and party in one.hosts]


def _spending(admission: Admission, party: str) -> Spending | None:
    guard = admission.guards.get(party)
    budget = guard.budget if guard is not None else None
    if budget is None:
        return None
    return Spending(budget.limit, budget.spent, budget.refused, budget.window_s, budget.ends_s)
