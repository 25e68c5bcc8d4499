"""How often each user is asked about, per service and day: who is worth warming the caches for.

Counting is one dictionary entry per call; what was counted goes to the shared server every few seconds. There, and
in what outlives a call, ids are kept under AES-SIV (RFC 5297), which gives one user one ciphertext on every replica.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from serving.activity_store import ActivityStore
from serving.errors import InvalidRequestError, NotReadyError

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
MAX_HELD = 100_000
"""Users waiting in memory, of all services; further ones are not counted until the next flush."""
PIECE, APART_S = 200, 0.005
"""Users sealed and sent in one turn of the event loop, and the pause after them while calls are served: all that may be
held goes within the time to the next flush."""
MAX_PAGE, MAX_DAYS = 10_000, 31
DAY_S = 86_400


class IdSeal:
    """Ids of users, sealed with a key made from the cache secret."""

    def __init__(self, secret: bytes, party: str) -> None:
        key = HKDF(hashes.SHA256(), length=64, salt=None, info=b"tessera activity").derive(secret)
        self._cipher = AESSIV(key)
        self._about = [party.encode()]

    def seal(self, user_id: str) -> bytes:
        return self._cipher.encrypt(user_id.encode(), self._about)

    def open(self, sealed: bytes) -> str | None:
        """None for what was sealed with another secret."""
        try:
            return self._cipher.decrypt(sealed, self._about).decode()
        except InvalidTag:
            return None


@dataclass(frozen=True, slots=True)
class Active:
    """Users with their counts, the most active first; the totals are of all users, `total_count` from offset 0 only."""

    user_ids: Sequence[str]
    counts: Sequence[int]
    total_users: int
    total_count: int


class Activity:
    """`start` and `stop` once. Never raises on the path of a request. `clock` is Unix seconds; `pause` waits."""

    def __init__(
        self,
        store: ActivityStore,
        seal: IdSeal,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._pause = pause
        self._counts: dict[str, Counter[str | bytes]] = {}
        self._held = 0
        self._task: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self._down = False
        self.shed = 0
        """Calls that were not counted because too much waited."""

    def count(self, service: str, user_ids: Sequence[str]) -> None:
        if len(user_ids) == 1:
            self.count_again(service, user_ids[0])
        elif service and self._held + len(user_ids) <= MAX_HELD:
            counts = self._counts.setdefault(service, Counter())
            before = len(counts)
            counts.update(user_ids)
            self._held += len(counts) - before
        elif self._held >= MAX_HELD:
            held = self._counts.get(service, Counter())
            known = [user_id for user_id in user_ids if user_id in held]
            held.update(known)
            self.shed += len(user_ids) - len(known)
        else:
            for user_id in user_ids:
                self.count_again(service, user_id)

    def count_again(self, service: str, user: str | bytes) -> None:
        """Of a user that may be known by its sealed id alone; empty for nobody."""
        counts = self._counts.get(service)
        if counts is not None and user in counts:
            counts[user] += 1
        elif self._held >= MAX_HELD:
            self.shed += 1
        elif user and service:
            self._counts.setdefault(service, Counter())[user] = 1
            self._held += 1

    def seal(self, user_id: str) -> bytes:
        """Empty for nobody."""
        return self._seal.seal(user_id) if user_id else b""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.flush()
        await self._store.close()

    async def top(self, service: str, days: tuple[int, int], offset: int, limit: int) -> Active:
        """Of these UTC days, the first and the last. Own counts as of now, the others' as of their last flush. Raises
        InvalidRequestError, or NotReadyError when the store does not answer."""
        if not (0 < limit <= MAX_PAGE and 0 <= days[1] - days[0] < MAX_DAYS):
            raise InvalidRequestError(f"ask for 1 to {MAX_PAGE} users, and 1 to {MAX_DAYS} days")
        await self.flush()
        try:
            found, users, count = await self._store.top(service, days, offset, limit)
        except OSError as error:
            logger.error("activity cannot be read: %s", error)
            raise NotReadyError("activity cannot be read now; ask again later") from None
        opened = [(self._seal.open(sealed), times) for sealed, times in found]
        known = [(user_id, times) for user_id, times in opened if user_id is not None]
        return Active([user_id for user_id, _ in known], [times for _, times in known], users, count)

    async def flush(self, apart_s: float = 0.0) -> None:
        """In pieces, so long apart. What cannot be stored waits for the next time."""
        try:
            async with self._flushing:
                await self._flush(apart_s)
        except OSError as error:
            if not self._down:
                logger.warning("activity of users waits in memory: %s", error)
            self._down = True
        else:
            self._down = False

    async def _flush(self, apart_s: float) -> None:
        taken, self._counts, self._held = self._counts, {}, 0
        left = [(service, user, times) for service, counts in taken.items() for user, times in counts.items() if user]
        day = int(self._clock()) // DAY_S
        try:
            while left:
                some = left[-PIECE:]
                sealed = [(service, self._sealed(user), times) for service, user, times in some]
                await self._store.add(day, sealed)
                del left[-PIECE:]
                await self._pause(apart_s)  # a store in memory lets nobody else run
        finally:
            for service, user, times in left:
                self._give_back(service, user, times)

    def _sealed(self, user: str | bytes) -> bytes:
        return self._seal.seal(user) if isinstance(user, str) else user

    def _give_back(self, service: str, user: str | bytes, times: int) -> None:
        counts = self._counts.setdefault(service, Counter())
        if user not in counts and self._held >= MAX_HELD:
            self.shed += times
            return
        self._held += user not in counts
        counts[user] += times

    async def _keep(self) -> None:
        while True:
            await self._pause(FLUSH_S)
            try:
                await self.flush(APART_S)
            except Exception:
                logger.exception("counting activity failed; it is tried again")
