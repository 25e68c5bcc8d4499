"""What other parties may ask of this one as a host: for which purposes, about which users, about how many, how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving.budget import Ledger, QueryBudget
from serving.errors import NotAllowedError
from serving.limits import Gate, Gates
from serving.pool import ModelId
from serving.settings import PeerSettings, Purpose, Settings


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, known from the transport, and what for."""

    party: str
    purpose: Purpose = Purpose.INFER


@dataclass(frozen=True, slots=True)
class Guard:
    """What one party may. `users`: None for any."""

    purposes: frozenset[Purpose]
    users: frozenset[str] | None = None
    budget: QueryBudget | None = None


class Admission:
    """`guards` by party; a party without one may what the settings let by default. `gates`: how much each may ask."""

    def __init__(self, guards: Mapping[str, Guard], gates: Gates | None = None) -> None:
        self.guards = guards
        self._gates = gates

    def check_purpose(self, asker: Asker) -> None:
        """Raises NotAllowedError."""
        if asker.purpose not in self.guards.get(asker.party, _ANYONE).purposes:
            raise NotAllowedError(
                f"this party answers {asker.party!r} no {asker.purpose.value} calls: see peers.{asker.party}.purposes"
            )

    def enter(self, asker: Asker, rows: int) -> Gate | None:
        """Where the call now counts as running; whoever enters leaves it. Raises LimitError."""
        gate = self._gates.of(asker.party) if self._gates is not None else None
        if gate is not None:
            gate.take(rows)
            gate.enter()
        return gate

    def admit(self, asker: Asker, model: ModelId, user_ids: Sequence[str]) -> list[bool] | None:
        """Which users may be answered, None for all; those are counted. Raises NotAllowedError or LimitError when none
        may."""
        self.check_purpose(asker)
        guard = self.guards.get(asker.party, _ANYONE)
        listed = _listed(guard, asker, user_ids)
        if guard.budget is None:
            return listed
        if listed is None:
            return guard.budget.take(model, user_ids)
        counted = guard.budget.take(model, [one for one, named in zip(user_ids, listed, strict=True) if named])
        if counted is None:
            return listed
        left = iter(counted)
        return [named and next(left) for named in listed]


def _listed(guard: Guard, asker: Asker, user_ids: Sequence[str]) -> list[bool] | None:
    if guard.users is None:
        return None
    listed = [one in guard.users for one in user_ids]
    if not any(listed):
        raise NotAllowedError(f"party {asker.party!r} may not ask about these users: see peers.{asker.party}.users")
    return None if all(listed) else listed


def make_admission(settings: Settings, secret: bytes, gates: Gates) -> Admission:
    """Reads files. Raises OSError naming the file."""
    guards = {party: _guard(party, peer, settings, secret) for party, peer in settings.peers.items()}
    return Admission(guards, gates)


def _guard(party: str, peer: PeerSettings, settings: Settings, secret: bytes) -> Guard:
    budget = None
    if peer.budget is not None:
        budget = QueryBudget(Ledger(Path(settings.state_dir), party, secret), peer.budget, peer.budget_window_s)
    return Guard(frozenset(peer.purposes), _users(peer.users), budget)


def _users(path: str) -> frozenset[str] | None:
    if not path:
        return None
    try:
        return frozenset(Path(path).read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise OSError(f"{path} is not UTF-8 text with an id a line") from None


_ANYONE = Guard(frozenset(PeerSettings().purposes))
