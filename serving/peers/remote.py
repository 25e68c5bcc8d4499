"""The partials of hosts through the cache levels: memory, shared server, then one call for what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from apps.app import CacheLevel, PartyStatus
from serving.cache.keys import KeyMaker
from serving.cache.tier import MISS, Entry, Found
from serving.cache.tiered import TieredCache
from serving.peers.asked import Asked
from serving.peers.partials import HostPartials, Lookup, Piece
from serving.peers.peer import LATE, PeerAnswer
from serving.pool import ModelHandle
from serving.settings import CacheSettings, Purpose

KEPT = {PartyStatus.OK, PartyStatus.NOT_FOUND}
"""Only answers are cached, never failures."""
MAX_MAKERS = 1_024
Look = Callable[[Sequence[bytes]], Sequence[Found]]
_NO_PARTIAL = Entry(PartyStatus.INTERNAL, 0.0, 0.0, b"")
_AGAIN_S = 0.01
"""With less time than this left nobody is asked again."""
_NO_ADDRESS = "the settings give it no address"


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
        self._makers: LRUCache[tuple[str, str], KeyMaker] = LRUCache(MAX_MAKERS)

    def look(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> Lookup:
        """What memory has of the users' partials: at once, without waiting."""
        return self._looked(party, handle, user_ids, self._cache.peek)

    async def find(self, lookup: Lookup) -> None:
        """Add what the shared level has. Never raises."""
        rows, size = lookup.missing(), lookup.wanted.row_bytes
        for row, entry in zip(rows, await self._cache.find([lookup.keys[row] for row in rows]), strict=True):
            if entry is not MISS:
                lookup.pieces[row] = (_of_size(entry, size), CacheLevel.L3)

    async def ask(self, lookup: Lookup, deadline: float) -> None:
        """Ask the host for what is missing; of those who miss a user at the same time one asks. Afterwards nothing is
        missing. Never raises for what the host does. `deadline`: loop time."""
        peer = self._peers.get(lookup.party)
        if peer is None:
            lookup.fail(PartyStatus.UNREACHABLE, _NO_ADDRESS)
            return
        try:
            # Another caller's call may be the one that is waited for, and its deadline may be later, or sooner.
            late = await self._ask(peer, lookup, lookup.missing(), deadline)
            if late and deadline - asyncio.get_running_loop().time() > _AGAIN_S:
                await self._ask(peer, lookup, late, deadline)
        except TimeoutError:
            self._take_late(lookup)

    async def _ask(self, peer: Asked, lookup: Lookup, rows: Sequence[int], deadline: float) -> list[int]:
        """The rows for which another caller's call was waited for, in vain because it had less time."""
        handle, own = lookup.handle, set[int]()
        refused: list[PeerAnswer] = []
        lookup.reason = ""

        def load(positions: Sequence[int]) -> Awaitable[PeerAnswer]:
            own.update([rows[position] for position in positions])
            asked = [lookup.user_ids[rows[position]] for position in positions]
            return peer.infer(handle.id, handle.artifact.binding_digest, asked, lookup.wanted, deadline)

        def unpack(answer: PeerAnswer) -> Sequence[Entry]:
            if answer.reason:
                refused.append(answer)
            return self._entries(answer)

        entries = await self._cache.load([lookup.keys[row] for row in rows], load, unpack, deadline)
        pieces, no_level, late = lookup.pieces, CacheLevel.NONE, PartyStatus.TIMEOUT
        for row, entry in zip(rows, entries, strict=True):
            pieces[row] = (entry, no_level)
            if entry.status is late:
                lookup.reason = LATE
        if refused:
            lookup.reason, lookup.retry_after_s = refused[0].reason, refused[0].retry_after_s
        if len(own) == len(rows) or lookup.reason != LATE:
            return []
        return [row for row in rows if row not in own and _is_late(lookup.pieces[row])]

    async def ask_aside(self, lookup: Lookup, deadline: float) -> None:
        """As `ask`, for a version that answers nobody. Nothing is kept, and no answer waits for the same call: the host
        may refuse it."""
        peer, handle, rows = self._peers.get(lookup.party), lookup.handle, lookup.missing()
        if peer is None:
            lookup.fail(PartyStatus.UNREACHABLE, _NO_ADDRESS)
            return
        users, digest = [lookup.user_ids[row] for row in rows], handle.artifact.binding_digest
        answer = await peer.infer(handle.id, digest, users, lookup.wanted, deadline, Purpose.SHADOW)
        for row, entry in zip(rows, self._entries(answer), strict=True):
            lookup.pieces[row] = (entry, CacheLevel.NONE)
        lookup.reason = answer.reason

    async def warm(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float, dry_run: bool
    ) -> Warmed:
        """Fill the levels with what they lack: what is asked for to answer is overheard, the rest asked for with other
        warm-ups of the same users. No answer waits for such a call, which the host may refuse, and which comes after
        all that answer. A dry run only looks. Never raises for what the host does. `deadline`: loop time."""
        lookup = self._looked(party, handle, user_ids, self._cache.look)
        await self.find(lookup)
        rows = [None if piece is None else piece[0].status for piece in lookup.pieces]
        missing, peer = lookup.missing(), self._peers.get(party)
        if dry_run or not missing:
            return Warmed(rows, missing, "")
        if peer is None:
            unreachable = [PartyStatus.UNREACHABLE if one is None else one for one in rows]
            return Warmed(unreachable, missing, _NO_ADDRESS)
        awaited = [row for row in missing if self._cache.is_loading(lookup.keys[row])]
        others = sorted(set(missing).difference(awaited))
        _, reason = await asyncio.gather(
            self._overhear(lookup, awaited, deadline), self._ask_to_warm(peer, lookup, others, deadline)
        )
        reason = await self._ask_to_warm(peer, lookup, lookup.missing(), deadline) or reason
        return Warmed([piece[0].status for piece in lookup.pieces if piece is not None], missing, reason)

    async def _overhear(self, lookup: Lookup, rows: Sequence[int], deadline: float) -> None:
        """What fails is missing afterwards: a warm-up may have more time than who answers."""
        found = await self._cache.overhear([lookup.keys[row] for row in rows], deadline)
        for row, entry in zip(rows, found, strict=True):
            if entry is not MISS and entry.status in KEPT:
                lookup.pieces[row] = (entry, CacheLevel.NONE)

    async def _ask_to_warm(self, peer: Asked, lookup: Lookup, rows: Sequence[int], deadline: float) -> str:
        """Why the host did not answer, if it did not."""
        if not rows:
            return ""
        handle, answers = lookup.handle, list[PeerAnswer]()

        def load(positions: Sequence[int]) -> Awaitable[PeerAnswer]:
            asked = [lookup.user_ids[rows[position]] for position in positions]
            digest = handle.artifact.binding_digest
            return peer.infer(handle.id, digest, asked, lookup.wanted, deadline, Purpose.WARMUP)

        def unpack(answer: PeerAnswer) -> Sequence[Entry]:
            answers.append(answer)
            return self._entries(answer)

        try:
            entries = await self._cache.load([lookup.keys[row] for row in rows], load, unpack, deadline, aside=True)
        except TimeoutError:
            lookup.fail(PartyStatus.TIMEOUT, LATE)
            return LATE
        for row, entry in zip(rows, entries, strict=True):
            lookup.pieces[row] = (entry, CacheLevel.NONE)
        if answers:
            return answers[0].reason
        return next((entry.status.name.lower() for entry in entries if entry.status not in KEPT), "")

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        """What any level has, fresh or not; UNREACHABLE where none has anything. Nobody is asked."""
        keys, size = self._keys(party, handle, user_ids), handle.wanted[party].row_bytes
        pieces: list[Piece | None] = [
            None if entry is MISS else (_of_size(entry, size), CacheLevel.L3 if shared else CacheLevel.L2)
            for entry, shared in await self._cache.find_stale(keys)
        ]
        lookup = Lookup(party, handle, user_ids, keys, pieces)
        lookup.fail(PartyStatus.UNREACHABLE, "")
        return lookup.partials()

    def _take_late(self, lookup: Lookup) -> None:
        """What arrived in time; the other rows are TIMEOUT."""
        rows = [row for row, piece in enumerate(lookup.pieces) if piece is None or _is_late(piece)]
        for row, entry in zip(rows, self._cache.look([lookup.keys[row] for row in rows]), strict=True):
            if entry is not MISS:
                lookup.pieces[row] = (entry, CacheLevel.L2)
        lookup.fail(PartyStatus.TIMEOUT, LATE)

    def _looked(self, party: str, handle: ModelHandle, user_ids: Sequence[str], look: Look) -> Lookup:
        keys = self._keys(party, handle, user_ids)
        level = CacheLevel.L2
        pieces: list[Piece | None] = [None if entry is MISS else (entry, level) for entry in look(keys)]
        return Lookup(party, handle, user_ids, keys, pieces)

    def _keys(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> list[bytes]:
        return self._maker(party, handle).keys(user_ids)

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
        """One for each row. A failure is an entry that nobody keeps: it only reaches those who wait for it."""
        now_s, settings = self._clock(), self._settings
        raw, size = answer.values.tobytes(), answer.values.itemsize * answer.values.shape[1]
        if answer.max_age_ms is None and answer.is_complete:
            fresh_s = now_s + settings.shared_ttl_s
            stale_s = fresh_s + settings.stale_s
            ends = range(size, len(raw) + 1, size)
            return [Entry(PartyStatus.OK, fresh_s, stale_s, raw[end - size : end]) for end in ends]
        entries = []
        for row, status in enumerate(answer.statuses):
            if status not in KEPT:
                entries.append(Entry(status, 0.0, 0.0, b""))
                continue
            found = status is PartyStatus.OK
            ttl_s = settings.shared_ttl_s if found else settings.not_found_ttl_s
            if answer.max_age_ms is not None:
                ttl_s = min(ttl_s, answer.max_age_ms[row] / 1_000)
            stale_s = settings.stale_s if found and ttl_s else 0.0
            payload = raw[row * size : (row + 1) * size] if found else b""
            entries.append(Entry(status, now_s + ttl_s, now_s + ttl_s + stale_s, payload))
        return entries


def _is_late(piece: Piece | None) -> bool:
    return piece is not None and piece[0].status is PartyStatus.TIMEOUT


def _of_size(entry: Entry, size: int) -> Entry:
    """The shared level is outside this process: an entry of another width is no partial of this model."""
    return _NO_PARTIAL if len(entry.payload) not in {0, size} else entry
