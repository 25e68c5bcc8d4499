"""Hosts in this process: the twin of asking peers over the wire, for tests and for one-process set-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from apps.app import CacheLevel, PartyStatus
from serving.cache.tier import Entry
from serving.errors import TesseraError
from serving.features.source import FeatureSourceError
from serving.host import HostSide
from serving.peers.partials import HostPartials, Lookup
from serving.pool import ModelHandle


class LocalHosts:
    """`sides` by party id; a party that is not there is unreachable. Nothing is cached. `deadline` is loop time."""

    def __init__(self, sides: Mapping[str, HostSide]) -> None:
        self._sides = sides

    def look(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> Lookup:
        rows = len(user_ids)
        return Lookup(party, handle, user_ids, [b""] * rows, [None] * rows)

    async def find(self, lookup: Lookup) -> None:
        pass

    async def ask(self, lookup: Lookup, deadline: float) -> None:
        await asyncio.create_task(self._ask(lookup, deadline))

    async def _ask(self, lookup: Lookup, deadline: float) -> None:
        side, handle = self._sides.get(lookup.party), lookup.handle
        if side is None:
            lookup.fail(PartyStatus.UNREACHABLE, "")
            return
        try:
            async with asyncio.timeout_at(deadline):
                answer = await side.infer(handle.id, handle.artifact.binding_digest, lookup.user_ids)
        except TimeoutError:
            lookup.fail(PartyStatus.TIMEOUT, "")
        except (TesseraError, FeatureSourceError):
            lookup.fail(PartyStatus.MISMATCH, "")
        else:
            entries = [
                Entry(status, 0.0, 0.0, b"" if status else values.tobytes())
                for status, values in zip(answer.statuses, answer.values, strict=True)
            ]
            lookup.pieces = [(entry, CacheLevel.NONE) for entry in entries]

    async def ask_aside(self, lookup: Lookup, deadline: float) -> None:
        await self.ask(lookup, deadline)

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        lookup = self.look(party, handle, user_ids)
        lookup.fail(PartyStatus.UNREACHABLE, "")
        return lookup.partials()
