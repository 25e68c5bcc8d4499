"""The partials of hosts through the cache levels: memory, shared server, then one call for what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace

from cachetools import LRUCache

from apps.app import CacheLevel, PartyStatus
from loaders.loader import PartialSpec
from serving.cache.keys import KeyMaker
from serving.cache.tier import Entry, Miss
from serving.cache.tiered import TieredCache
from serving.peers.asked import Asked
from serving.peers.partials import HostPartials
from serving.peers.peer import LATE, PeerAnswer
from serving.pool import ModelHandle
from serving.settings import CacheSettings, Purpose

KEPT = {PartyStatus.OK, PartyStatus.NOT_FOUND}
"""Only answers are cached, never failures."""
MAX_MAKERS = 1_024
_NO_PARTIAL = Entry(PartyStatus.INTERNAL, 0.0, 0.0, b"")


@dataclass(frozen=True, slots=True)
class Warmed:
    """`statuses`: None where nothing is there and nobody was asked; `missing`: rows that were not there before."""

    statuses: Sequence[PartyStatus | None]
    missing: Sequence[int]
    reason: str


class RemotePartials:
    """Asks peers for their partials. `clock` is Unix seconds, for the ages of entries."""

    def __init__(
        self,
        party: str,
        peers: Mapping[str, Asked],
        cache: TieredCache,
        secret: bytes,
        settings: CacheSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._party = party
        self._peers = peers
        self._cache = cache
        self._secret = secret
        self._settings = settings
        self._clock = clock
        self._just_made: tuple[str, str, Sequence[str], list[bytes]] = ("", "", (), [])
        self._makers: LRUCache[tuple[str, str], KeyMaker] = LRUCache(MAX_MAKERS)

    def cached(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials | None:
        """The host's partials when memory has them all: at once, without a task."""
        keys = self._keys(party, handle, user_ids)
        found = self._cache.peek(keys)
        entries = [entry for entry in found if not isinstance(entry, Miss)]
        if len(entries) < len(found):
            self._just_made = (party, handle.artifact.binding_digest, user_ids, keys)
            return None
        return _partials(party, handle.wanted[party], [(entry, CacheLevel.L2) for entry in entries], "")

    def fetch(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float
    ) -> Coroutine[None, None, HostPartials]:
        """The host's partials in the order asked; never raises for what the host does. `deadline`: loop time."""
        last_party, digest, users, keys = self._just_made
        # Who asks has mostly just looked; keys cost too much to make them twice.
        if users is not user_ids or party != last_party or digest != handle.artifact.binding_digest:
            keys = self._keys(party, handle, user_ids)
        return self._fetch(party, handle, user_ids, keys, deadline)

    async def _fetch(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], keys: list[bytes], deadline: float
    ) -> HostPartials:
        peer = self._peers.get(party)
        if peer is None:
            return self._failed(party, handle, user_ids, PartyStatus.UNREACHABLE, "the settings give it no address")
        refused: list[PeerAnswer] = []

        async def load(positions: Sequence[int]) -> Mapping[int, Entry]:
            asked = [user_ids[position] for position in positions]
            answer = await peer.infer(handle.id, handle.artifact.binding_digest, asked, handle.wanted[party], deadline)
            if answer.reason:
                refused.append(answer)
            return dict(zip(positions, self._entries(answer), strict=True))

        try:
            # Another caller's call may be the one that is waited for, and its deadline may be later.
            async with asyncio.timeout_at(deadline):
                found = await self._cache.fetch(keys, load)
        except TimeoutError:
            return self._late(party, handle, keys)
        if not refused:
            return _partials(party, handle.wanted[party], found, "")
        partials = _partials(party, handle.wanted[party], found, refused[0].reason)
        return replace(partials, retry_after_s=refused[0].retry_after_s)

    async def shadow(self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float) -> HostPartials:
        """As `fetch`, for a version that answers nobody. Nothing is kept, and no answer waits for the same call: the
        host may refuse it."""
        known = self.cached(party, handle, user_ids)
        if known is not None:
            return known
        peer = self._peers.get(party)
        if peer is None:
            return self._failed(party, handle, user_ids, PartyStatus.UNREACHABLE, "the settings give it no address")
        wanted, digest = handle.wanted[party], handle.artifact.binding_digest
        answer = await peer.infer(handle.id, digest, user_ids, wanted, deadline, Purpose.SHADOW)
        levels = [CacheLevel.NONE] * len(user_ids)
        return HostPartials(party, answer.values, answer.statuses, levels, answer.reason)

    async def warm(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float, dry_run: bool
    ) -> Warmed:
        """Fill the levels with what they lack, by a call of its own: no request is to fail because a host refused a
        warm-up. A dry run only looks. Never raises for what the host does."""
        keys = self._keys(party, handle, user_ids)
        found = await self._cache.find(keys)
        rows: list[PartyStatus | None] = [None if isinstance(entry, Miss) else entry.status for entry in found]
        missing = [row for row, entry in enumerate(found) if isinstance(entry, Miss)]
        peer = self._peers.get(party)
        if dry_run or not missing:
            return Warmed(rows, missing, "")
        if peer is None:
            unreachable = [PartyStatus.UNREACHABLE if one is None else one for one in rows]
            return Warmed(unreachable, missing, "the settings give it no address")
        asked = [user_ids[row] for row in missing]
        spec, digest = handle.wanted[party], handle.artifact.binding_digest
        answer = await peer.infer(handle.id, digest, asked, spec, deadline, Purpose.WARMUP)
        loaded = dict(zip(missing, self._entries(answer), strict=True))
        await self._cache.keep({keys[row]: entry for row, entry in loaded.items()})
        for row, entry in loaded.items():
            rows[row] = entry.status
        return Warmed(rows, missing, answer.reason)

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        """What any level has, fresh or not; UNREACHABLE where none has anything. Nobody is asked."""
        found = await self._cache.find_stale(self._keys(party, handle, user_ids))
        absent = (Entry(PartyStatus.UNREACHABLE, 0.0, 0.0, b""), CacheLevel.NONE)
        return _partials(party, handle.wanted[party], [one or absent for one in found], "")

    def _late(self, party: str, handle: ModelHandle, keys: Sequence[bytes]) -> HostPartials:
        """What arrived in time; the other rows are TIMEOUT."""
        late = (Entry(PartyStatus.TIMEOUT, 0.0, 0.0, b""), CacheLevel.NONE)
        found = [late if isinstance(entry, Miss) else (entry, CacheLevel.L2) for entry in self._cache.look(keys)]
        return _partials(party, handle.wanted[party], found, LATE)

    def _failed(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], status: PartyStatus, reason: str
    ) -> HostPartials:
        failed = (Entry(status, 0.0, 0.0, b""), CacheLevel.NONE)
        return _partials(party, handle.wanted[party], [failed] * len(user_ids), reason)

    def _keys(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> list[bytes]:
        return list(map(self._maker(party, handle).key, user_ids))

    def _maker(self, party: str, handle: ModelHandle) -> KeyMaker:
        digest = handle.artifact.binding_digest
        maker = self._makers.get((party, digest))
        if maker is None:
            half = (handle.id.model, handle.id.version, digest)
            maker = self._makers[party, digest] = KeyMaker(
                self._secret, self._party, self._settings.key_id, party, half
            )
        return maker

    def _entries(self, answer: PeerAnswer) -> list[Entry]:
        now_s = self._clock()
        return [self._entry(status, answer, row, now_s) for row, status in enumerate(answer.statuses)]

    def _entry(self, status: PartyStatus, answer: PeerAnswer, row: int, now_s: float) -> Entry:
        """A failure is an entry that nobody keeps: it only reaches those who wait for it."""
        if status not in KEPT:
            return Entry(status, 0.0, 0.0, b"")
        ttl_s = self._settings.shared_ttl_s if status is PartyStatus.OK else self._settings.not_found_ttl_s
        if answer.max_age_ms is not None:
            ttl_s = min(ttl_s, answer.max_age_ms[row] / 1_000)
        payload = answer.values[row].tobytes() if status is PartyStatus.OK else b""
        stale_s = self._settings.stale_s if status is PartyStatus.OK and ttl_s else 0.0
        return Entry(status, now_s + ttl_s, now_s + ttl_s + stale_s, payload)


def _partials(party: str, wanted: PartialSpec, found: Sequence[tuple[Entry, CacheLevel]], reason: str) -> HostPartials:
    blank, size = wanted.blank(1).tobytes(), wanted.row_bytes
    # The shared level is outside this process: an entry of another width is no partial of this model.
    found = [(_NO_PARTIAL, level) if len(entry.payload) not in {0, size} else (entry, level) for entry, level in found]
    values = wanted.unpack(b"".join(entry.payload or blank for entry, _ in found), len(found))
    statuses = [entry.status for entry, _ in found]
    return HostPartials(party, values, statuses, [level for _, level in found], reason)
