"""How many users a party may ask about: distinct (user, version) in a window, in an append-only ledger.

The ledger of a window is a file of 8-byte keyed hashes (BLAKE2b, RFC 7693), never ids, which the workers of a node
share; it is read again at start. What was counted survives the end of the process; a power cut may lose the last
seconds of it. Two users share a hash with a chance of 3e-8 among a million, and then count once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cachetools import LRUCache

from serving.errors import LimitError
from serving.pool import ModelId

FOLDER = "ledgers"
KEPT_WINDOWS = 32
"""The ledger of the one before is removed when a window begins."""
HASH_BYTES = 8
_MAX_VERSIONS = 1_024


class Ledger:
    """The files of one peer in `folder`, one of which is in use. `secret`: the node's."""

    def __init__(self, folder: Path, party: str, secret: bytes) -> None:
        self.seen: set[bytes] = set()
        self._folder = folder / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._party = party
        self._key = hmac.digest(secret, b"tessera query ledger", "sha256")
        self._prefixes: LRUCache[ModelId, hashlib.blake2b] = LRUCache(_MAX_VERSIONS)
        self._file = -1
        self._read_to = 0

    def begin(self, start_s: int, forget_s: int) -> None:
        """Of the window that begins then; what stands in its file is read. That of `forget_s` is removed."""
        opened = os.open(self._path(start_s), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.close()
        self._file, self._read_to = opened, 0
        self.seen = set()
        self.follow()
        self._path(forget_s).unlink(missing_ok=True)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def hashes(self, model: ModelId, user_ids: Sequence[str]) -> list[bytes]:
        prefix = self._prefixes.get(model)
        if prefix is None:
            prefix = self._prefixes[model] = hashlib.blake2b(key=self._key, digest_size=HASH_BYTES)
            for part in (model.model.encode(), model.version.encode()):
                prefix.update(len(part).to_bytes(4, "big") + part)
        found = []
        for user_id in user_ids:
            one = prefix.copy()
            one.update(user_id.encode())
            found.append(one.digest())
        return found

    def add(self, hashes: Sequence[bytes], limit: int) -> list[bool] | None:
        """Write down those that are new, while there is room; None when there was for all, else which are known
        now."""
        fcntl.flock(self._file, fcntl.LOCK_EX)  # the other workers' entries come before or after, never between
        try:
            self.follow()
            new = list(dict.fromkeys(one for one in hashes if one not in self.seen))
            taken = new[: max(0, limit - len(self.seen))]
            if taken:
                self._append(b"".join(taken))
                self.seen.update(taken)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return None if len(taken) == len(new) else [one in self.seen for one in hashes]

    def follow(self) -> None:
        """Read what other workers wrote."""
        size = os.fstat(self._file).st_size
        size -= size % HASH_BYTES
        if size > self._read_to:
            fresh = os.pread(self._file, size - self._read_to, self._read_to)
            self.seen.update(fresh[at : at + HASH_BYTES] for at in range(0, len(fresh), HASH_BYTES))
            self._read_to = size

    def _append(self, entries: bytes) -> None:
        size = os.fstat(self._file).st_size
        if size % HASH_BYTES:  # what a full disk left of an entry
            os.ftruncate(self._file, size - size % HASH_BYTES)
        if os.write(self._file, entries) != len(entries):
            raise OSError(f"the ledger of queries of party {self._party!r} cannot be written: the disk is full")
        self._read_to += len(entries)

    def _path(self, start_s: int) -> Path:
        return self._folder / f"{self._party}-{start_s}.ledger"


class QueryBudget:
    """Of one peer. `limit`: of a window of `window_s`, which begin at multiples of it since 1970. `clock`: Unix
    seconds. Opens files where it is made, and when a window begins. Raises OSError."""

    def __init__(
        self,
        ledger: Ledger,
        limit: int,
        window_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self.window_s = window_s
        self.refused = 0
        """Rows, since the node began."""
        self._ledger = ledger
        self._clock = clock
        self._ends_s = 0.0
        self._turn()

    @property
    def spent(self) -> int:
        self._turn()
        self._ledger.follow()
        return len(self._ledger.seen)

    @property
    def ends_s(self) -> float:
        """When the window ends."""
        return self._ends_s

    def take(self, model: ModelId, user_ids: Sequence[str]) -> list[bool] | None:
        """Count these users of a version; None when all may be answered, else which. Raises LimitError when none
        may."""
        self._turn()
        hashes = self._ledger.hashes(model, user_ids)
        if self._ledger.seen.issuperset(hashes):
            return None
        known = self._ledger.add(hashes, self.limit)
        if known is None:
            return None
        self.refused += len(known) - sum(known)
        if not any(known):
            raise LimitError(
                f"the query budget is spent: {self.limit} users and versions in {self.window_s:g} s",
                max(0.0, self._ends_s - self._clock()),
            )
        return known

    def _turn(self) -> None:
        now_s = self._clock()
        if now_s >= self._ends_s:
            window = int(now_s // self.window_s)
            self._ends_s = (window + 1) * self.window_s
            self._ledger.begin(int(window * self.window_s), int((window - KEPT_WINDOWS) * self.window_s))
