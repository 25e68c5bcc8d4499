"""L1: the whole answer of a case, as bytes ready to send.

The fast key is protocol method and raw request bytes. The second key serves a retry that serialises differently:
method, what the caller named, case id, and the canonical request. Of either the digest when it is long. Both lead to
one entry, which counts only while the epoch of its route is the one it was made under.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from apps.app import Request
from serving.cache.counts import Counts
from serving.cache.tier import MISS, Miss
from serving.routing import Address
from serving.telemetry.served import Repeats

Epoch = Callable[[Address], int]
Key = bytes | tuple[str, bytes]

_CANONICAL = msgspec.msgpack.Encoder(order="deterministic")
SHORT_BYTES = 1_024
"""To hash so many costs more than to keep them."""
MAX_RAW_BYTES = 64 << 10
"""Larger requests are known by their case alone: most are batches, which are not kept, and to hash them costs."""
_SWEPT = 8
"""Keys looked at for each case stored; it brings two."""


class Case(msgspec.Struct, frozen=True):
    """A request that names its case: the second key, made once for the look-up and for what is stored; what the caller
    named; the user."""

    key: bytes
    address: Address
    user: str


class Answer(msgspec.Struct, frozen=True):
    """A stored reply, what its caller named, and the mark of whom it is about: repeats count as activity too, and in
    `repeats`. `until` is monotonic seconds."""

    address: Address
    epoch: int
    user: bytes
    reply: bytes
    until: float
    repeats: Repeats


class ResultCache:
    """Bounded in entries (each case has two keys), absolute TTL, the oldest goes first. All entries live equally long,
    so the order in which they came is also that in which they end, and nothing need be sorted; cachetools' TTLCache
    takes 5.6 µs for each key that is stored, this 0.3. `mark` makes of a user's id what is kept of it. `clock` is
    monotonic seconds."""

    def __init__(
        self,
        max_entries: int,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        mark: Callable[[str], bytes] = lambda user_id: b"",
    ) -> None:
        self._answers: OrderedDict[Key, Answer] = OrderedDict()
        self._max_keys = 2 * max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._mark = mark
        self.counts = Counts()

    def __len__(self) -> int:
        """Keys, two for each case."""
        return len(self._answers)

    def by_raw(self, method: str, raw: bytes, epoch: Epoch) -> Answer | Miss:
        """The stored reply to exactly these bytes. Only they tell whose call it is, and so whether it may be answered:
        who answers with it counts the hit. A miss is counted by `by_case`, which is asked next."""
        return MISS if len(raw) > MAX_RAW_BYTES else self._get(_raw_key(method, raw), epoch)

    def case_of(self, method: str, request: Request) -> Case | None:
        """None for a request that names none: nothing is kept of it."""
        if not request.case_id:
            return None
        address = request.address
        return Case(_case_key(method, address, request), address, request.user_ids[0])

    def by_case(self, case: Case | None, epoch: Epoch) -> Answer | Miss:
        """The stored reply to the same case with the same content, however it was serialised."""
        answer = MISS if case is None else self._get(case.key, epoch)
        if answer is MISS:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
        return answer

    def store(self, method: str, raw: bytes, case: Case, epoch: int, reply: bytes, repeats: Repeats) -> None:
        """`epoch` as it was before the answer was computed; `reply` says that it comes from this cache; `repeats`
        counts those of the version that answered."""
        if epoch < 0:
            return  # nothing answered this address when the request came in
        now_s, answers = self._clock(), self._answers
        answer = Answer(case.address, epoch, self._mark(case.user), reply, now_s + self._ttl_s, repeats)
        for key in (_raw_key(method, raw), case.key):
            answers[key] = answer
            answers.move_to_end(key)
        self.counts.fills += 1
        self._make_room(now_s)

    def _get(self, key: Key, epoch: Epoch) -> Answer | Miss:
        answer = self._answers.get(key)
        if answer is None or answer.until <= self._clock() or epoch(answer.address) != answer.epoch:
            return MISS
        return answer

    def _make_room(self, now_s: float) -> None:
        """A few at a time: what has ended goes, and what is too much."""
        answers = self._answers
        for _ in range(_SWEPT):
            oldest = answers[next(iter(answers))]
            if oldest.until > now_s and len(answers) <= self._max_keys:
                break
            answers.popitem(last=False)
            self.counts.evictions += oldest.until > now_s


class NoResults(ResultCache):
    """The level switched off: it makes no keys, keeps nothing, and counts nothing."""

    def __init__(self) -> None:
        super().__init__(0, 0.0)

    def by_raw(self, method: str, raw: bytes, epoch: Epoch) -> Answer | Miss:
        return MISS

    def case_of(self, method: str, request: Request) -> Case | None:
        return None

    def by_case(self, case: Case | None, epoch: Epoch) -> Answer | Miss:
        return MISS


def _raw_key(method: str, raw: bytes) -> Key:
    if len(raw) <= SHORT_BYTES:
        return (method, raw)
    return hashlib.sha256(method.encode() + b"\0" + raw).digest()


def _case_key(method: str, address: Address, request: Request) -> bytes:
    """Everything that can change the answer, maps ordered by their names. MessagePack says where each part ends."""
    matrix = None if request.matrix is None else (request.signature_hash, request.matrix.tobytes())
    canonical = (method, address, request.case_id, request.user_ids, request.numbers, request.texts,
        request.parameters, matrix)  # fmt: skip
    whole = _CANONICAL.encode(canonical)
    return whole if len(whole) <= SHORT_BYTES else hashlib.sha256(b"case" + whole).digest()
