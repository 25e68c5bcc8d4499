"""Counts that all workers of a node keep together: pairs of numbers by key, in memory that they share.

The memory is the supervisor's, of no file: pages of a file make whoever writes to them wait while they go to the disk.
It has seats; a worker gets one when it starts, so that a worker and its successor, who run at once for a while, have
two. All that is in a seat is written by its worker alone, word by word: there are no locks, none of which a worker
that is killed could leave locked. Who wants the sum reads the others' seats. What it reads is at most as old as the
few instructions between two words, so that of workers that look at the same moment each may miss what the others are
just about to write.

A seat has two tables. When its worker has ended, however that came, the supervisor empties CALLS, in which that worker
counted what it was doing; TALLIES, what it has done, stay, count on, and are gone on with by the seat's next worker.

A key's pair is in one of the WINDOW places that begin with the key's own, before the first that was never used. A pair
whose window is full is not shared: its worker counts alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import mmap
import os
import tempfile
from enum import Enum

import msgspec

logger = logging.getLogger(__name__)

LAYOUT = 1
"""A new one for every change of what follows: a supervisor may be older than its workers."""
PLACES = 1 << 14
"""Of a table."""
WINDOW = 16
_WORD = 8
_PLACE = 3
"""Words: the key, and its pair. Of a place that is not used the key is one of these:"""
_NEVER, _GONE = 0, 1
_PAGE = 4_096 // _WORD
_TABLE = -(-_PLACE * (PLACES + WINDOW - 1) // _PAGE) * _PAGE
_SEAT = 2 * _TABLE
_HEADER = _PAGE
_LAYOUT_AT, _SEATS_AT = 0, 1
"""In the header: LAYOUT, and how many seats have ever been taken."""


class Table(Enum):
    """By its beginning in a seat."""

    TALLIES = 0
    CALLS = _TABLE


class Seat(msgspec.Struct, frozen=True):
    """A worker's: the memory's descriptor, and the seat's number."""

    memory: int
    number: int


def key_of(*names: object) -> int:
    """The same in every process; two that are not the same meet by chance, once in 2^64."""
    digest = hashlib.blake2b("\0".join(map(str, names)).encode(), digest_size=_WORD).digest()
    return max(int.from_bytes(digest, "big"), _GONE + 1)


class Seats:
    """The supervisor's side. `take` for each worker, `leave` when its process has ended."""

    def __init__(self, seats: int) -> None:
        self._memory = _anonymous()
        os.ftruncate(self._memory, _WORD * (_HEADER + seats * _SEAT))
        self._map = mmap.mmap(self._memory, 0)
        self._words = memoryview(self._map).cast("Q")
        self._words[_LAYOUT_AT] = LAYOUT
        self._free = set(range(seats))

    def take(self) -> Seat | None:
        """None when all are taken: that worker counts alone."""
        if not self._free:
            logger.warning("more workers run than can count together: a new one counts alone")
            return None
        number = min(self._free)
        self._free.discard(number)
        self._words[_SEATS_AT] = max(self._words[_SEATS_AT], number + 1)
        return Seat(self._memory, number)

    def leave(self, seat: Seat | None) -> None:
        """Nothing happens after `close`."""
        if seat is None or self._map.closed:
            return
        begin = _HEADER + seat.number * _SEAT + Table.CALLS.value
        self._map[_WORD * begin : _WORD * (begin + _TABLE)] = bytes(_WORD * _TABLE)
        self._free.add(seat.number)

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._memory)


class SharedCounts:
    """A worker's side, for its event loop alone. The memory stays mapped as long as the process lives."""

    def __init__(self, seat: Seat) -> None:
        """Raises OSError when the memory is none that this version can use."""
        view = memoryview(mmap.mmap(seat.memory, 0))
        self.words, self.numbers = view.cast("Q"), view.cast("d")
        if self.words[_LAYOUT_AT] != LAYOUT:
            raise OSError(f"the supervisor keeps counts in layout {self.words[_LAYOUT_AT]}, this version in {LAYOUT}")
        self._number = seat.number
        self.begin = _HEADER + seat.number * _SEAT
        self._seats = 0
        self._others: tuple[int, ...] = ()
        self._claimed: set[int] = set()

    def others(self) -> tuple[int, ...]:
        """How far the other seats are from this one."""
        if self.words[_SEATS_AT] != self._seats:
            self._seats = self.words[_SEATS_AT]
            self._others = tuple(_SEAT * (n - self._number) for n in range(self._seats) if n != self._number)
        return self._others

    def pair(self, table: Table, key: int) -> Pair | None:
        """This worker's own under a key, with the numbers that the seat's last worker left there, else 0 and infinity.
        None when there is no room."""
        home = self.begin + table.value + _PLACE * (key % PLACES)
        window = range(home, home + _PLACE * WINDOW, _PLACE)
        place = self.sought(home, key) or next((one for one in window if self.words[one] <= _GONE), 0)
        place = place or next((one for one in window if one not in self._claimed), 0)
        if not place:
            return None
        if self.words[place] != key:
            self.words[place] = _GONE
            self.numbers[place + 1], self.numbers[place + 2] = 0.0, math.inf
            self.words[place] = key
        self._claimed.add(place)
        return Pair(self, key, home, place)

    def sought(self, home: int, key: int) -> int:
        """Where the key of a `home`, in any seat, is; 0 for nowhere."""
        for place in range(home, home + _PLACE * WINDOW, _PLACE):
            found = self.words[place]
            if found == key:
                return place
            if not found:
                break
        return 0

    def release(self, place: int) -> None:
        self.words[place] = _GONE


class Pair:
    """This worker's two numbers under a key, beside those of the others."""

    __slots__ = ("_counts", "_home", "_key", "_numbers", "_place")

    def __init__(self, counts: SharedCounts, key: int, home: int, place: int) -> None:
        self._counts = counts
        self._numbers = counts.numbers
        self._key = key
        self._home = home
        self._place = place

    def read(self) -> tuple[float, float]:
        return self._numbers[self._place + 1], self._numbers[self._place + 2]

    def write(self, first: float, second: float) -> None:
        """The second is there before the first."""
        self._numbers[self._place + 2] = second
        self._numbers[self._place + 1] = first

    def of_others(self) -> tuple[float, float]:
        """The sum of their first numbers, and the least of their second."""
        counts, numbers, key = self._counts, self._numbers, self._key
        words, home, total, least = counts.words, self._home, 0.0, math.inf
        for distance in counts.others():
            place = home + distance
            if words[place] != key:
                place = counts.sought(place, key) if words[place] else 0
                if not place:
                    continue
            total += numbers[place + 1]
            second = numbers[place + 2]
            if second < least:  # noqa: PLR1730 - min() takes three times as long
                least = second
        return total, least

    def release(self) -> None:
        """Nobody counts it any more. Not to be used afterwards."""
        self._counts.release(self._place)


def shared_counts(seat: Seat | None) -> SharedCounts | None:
    """None for a worker that counts alone."""
    try:
        return SharedCounts(seat) if seat is not None else None
    except OSError as error:
        logger.warning("this worker counts alone until the node is stopped and started: %s", error)
        return None


def _anonymous() -> int:
    with contextlib.suppress(AttributeError):  # there is none but on Linux
        return os.memfd_create("tessera-counts")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
