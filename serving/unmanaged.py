"""Hosts that take no loads and no holds: a service is bound over them only where an operator accepts that, and after
they have answered once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from apps.app import PartyStatus
from loaders.loader import PartialSpec
from serving.errors import ConflictError
from serving.pool import ModelHandle, ModelId

PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Acceptance:
    """`parties` are accepted unmanaged. Each must answer for `probe_user`, or for that of its settings when empty.
    `standing`: whatever has a probe user in the settings is accepted."""

    parties: frozenset[str] = frozenset()
    probe_user: str = ""
    standing: bool = False


NOBODY = Acceptance()
STANDING = Acceptance(standing=True)


class Answered(Protocol):
    """What a host made of one call."""

    @property
    def statuses(self) -> Sequence[PartyStatus]: ...

    @property
    def reason(self) -> str: ...


class ProbedPeer(Protocol):
    """A host without holds. Never raises for what the host does."""

    async def infer(
        self, model: ModelId, binding_digest: str, user_ids: Sequence[str], wanted: PartialSpec, deadline: float
    ) -> Answered: ...


class UnmanagedHosts:
    """`peers` by party id; `probe_users` of the settings by party id. `clock` is monotonic seconds."""

    def __init__(
        self,
        peers: Mapping[str, ProbedPeer] | None = None,
        probe_users: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers = peers or {}
        self._probe_users = probe_users or {}
        self._clock = clock

    def among(self, handles: Iterable[ModelHandle]) -> tuple[str, ...]:
        return tuple(sorted({host for handle in handles for host in handle.hosts if host in self._peers}))

    def refuse_others(self, handles: Iterable[ModelHandle], accepted: Container[str]) -> None:
        """Raises ConflictError when an unmanaged host of these versions is not among the accepted ones."""
        refused = [party for party in self.among(handles) if party not in accepted]
        if refused:
            raise ConflictError(
                f"party {refused[0]!r} is unmanaged: nothing shows what it holds, and nothing keeps it loaded; accept "
                f"that with accept_unmanaged (`tessera model online --accept-unmanaged {refused[0]} --probe-user ID`)"
            )

    async def check(self, handles: Sequence[ModelHandle], acceptance: Acceptance) -> tuple[str, ...]:
        """The unmanaged hosts of these versions, each accepted and each having answered for every version. Raises
        ConflictError naming what is not so."""
        parties = self.among(handles)
        standing = {party for party, user in self._probe_users.items() if user and acceptance.standing}
        self.refuse_others(handles, acceptance.parties | standing)
        failures = await asyncio.gather(
            *(
                self._failure(handle, party, acceptance.probe_user or self._probe_users.get(party, ""))
                for handle in handles
                for party in self.among([handle])
            )
        )
        if any(failures):
            raise ConflictError(f"not ready at every party: {'; '.join(filter(None, failures))}")
        return parties

    async def _failure(self, handle: ModelHandle, party: str, user: str) -> str:
        """Why a probe did not go well, else ""."""
        if not user:
            return f"party {party!r} cannot be probed: name a user with probe_user_id or peers.{party}.probe_user"
        answer = await self._peers[party].infer(
            handle.id, handle.artifact.binding_digest, [user], handle.wanted[party], self._clock() + PROBE_TIMEOUT_S
        )
        status = answer.statuses[0]
        if status is PartyStatus.OK:
            return ""
        return f"{handle.id} at party {party!r}: {status.name.lower()} {answer.reason}".rstrip()
