"""Hosts in this process: the twin of asking peers over the wire, for tests and for one-process set-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from apps.app import CacheLevel, PartyStatus
from serving.errors import TesseraError
from serving.features.source import FeatureSourceError
from serving.host import HostSide
from serving.peers.partials import HostPartials
from serving.pool import ModelHandle


class LocalHosts:
    """`sides` by party id; a party that is not there is unreachable. Nothing is cached. `deadline` is loop time."""

    def __init__(self, sides: Mapping[str, HostSide]) -> None:
        self._sides = sides

    def cached(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials | None:
        return None

    async def fetch(self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float) -> HostPartials:
        side = self._sides.get(party)
        if side is None:
            return _failed(party, handle, user_ids, PartyStatus.UNREACHABLE)
        try:
            async with asyncio.timeout_at(deadline):
                answer = await side.infer(handle.id, handle.artifact.binding_digest, user_ids)
        except TimeoutError:
            return _failed(party, handle, user_ids, PartyStatus.TIMEOUT)
        except (TesseraError, FeatureSourceError):
            return _failed(party, handle, user_ids, PartyStatus.MISMATCH)
        return HostPartials(party, answer.values, answer.statuses, [CacheLevel.NONE] * len(user_ids))

    async def shadow(self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float) -> HostPartials:
        return await self.fetch(party, handle, user_ids, deadline)

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        return _failed(party, handle, user_ids, PartyStatus.UNREACHABLE)


def _failed(party: str, handle: ModelHandle, user_ids: Sequence[str], status: PartyStatus) -> HostPartials:
    rows = len(user_ids)
    return HostPartials(party, handle.wanted[party].blank(rows), [status] * rows, [CacheLevel.NONE] * rows)
