"""The figures of a party whose replicas share a control store, in the same server."""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from serving.figures.counts import Cells, Subject
from serving.figures.store import FEEDBACK_DAYS, FigureStore, Outcome

logger = logging.getLogger(__name__)

_DAY_S = 86_400
_TIMEOUT_S = 2.0
_ADD = """
local last = KEYS[1] .. ':last:' .. ARGV[1]
if tonumber(redis.call('GET', last) or '0') >= tonumber(ARGV[2]) then return end
redis.call('SET', last, ARGV[2], 'EX', ARGV[3])
for at = 4, #ARGV, 3 do
  redis.call('SADD', KEYS[1], ARGV[at])
  redis.call('HINCRBY', KEYS[1] .. ':' .. ARGV[at], ARGV[at + 1], ARGV[at + 2])
end
"""
"""The counts of one replica have numbers that rise: they are added once, however often and late they come."""
_TAKE = """
local taken = 0
for at = 2, #ARGV, 4 do
  local day = KEYS[1] .. ':taken:' .. ARGV[at + 1]
  if redis.call('SADD', day, ARGV[at]) == 1 then
    redis.call('EXPIRE', day, ARGV[1])
    redis.call('HINCRBY', KEYS[1] .. ':' .. ARGV[at + 2], ARGV[at + 3], 1)
    redis.call('SADD', KEYS[1], ARGV[at + 2])
    taken = taken + 1
  end
end
return taken
"""
"""An outcome and the sign that it was taken, together."""
_PER_SCRIPT = 500


class RedisFigureStore(FigureStore):
    """One hash of cells per subject, one set of ids per day. Counts of which the server has not said that it has them
    are sent again before others, and before anything is read."""

    def __init__(self, url: str, party: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, driver_info=None
        )
        self._key = f"tessera:figures:{{{party}}}"
        self._add, self._take = (self._redis.register_script(script) for script in (_ADD, _TAKE))
        self._name = secrets.token_hex(8)
        self._number = 0
        self._doubtful: list[int | str] = []
        self._adding = threading.Lock()

    def add(self, counted: Mapping[Subject, Cells]) -> None:
        with self._adding:
            self._settle()
            self._number += 1
            self._doubtful = [self._name, self._number, _DAY_S]
            for subject, cells in counted.items():
                for cell, count in cells.items():
                    self._doubtful += (subject.key(), cell, count)
            try:
                self._settle()
            except OSError as error:
                logger.warning("figures are sent again: %s", error)

    def _settle(self) -> None:
        if self._doubtful:
            with _reaching():
                self._add(keys=(self._key,), args=self._doubtful)
            self._doubtful = []

    def take(self, outcomes: Sequence[Outcome], today: int) -> int:
        count = 0
        recent = [outcome for outcome in outcomes if outcome.day >= today - FEEDBACK_DAYS]
        for start in range(0, len(recent), _PER_SCRIPT):
            arguments: list[bytes | int | str] = [(FEEDBACK_DAYS + 1) * _DAY_S]
            for one in recent[start : start + _PER_SCRIPT]:
                arguments += [one.id, one.day, one.subject.key(), one.cell]
            with _reaching():
                count += int(self._take(keys=(self._key,), args=arguments))
        return count

    def read(self) -> dict[Subject, Cells]:
        with self._adding:
            self._settle()
        with _reaching():
            members: set[Any] = self._redis.smembers(self._key)
            keys = sorted(key.decode() for key in members)
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(f"{self._key}:{key}")
            found = pipeline.execute()
        return {
            Subject.of(key): {int(cell): int(count) for cell, count in cells.items()}
            for key, cells in zip(keys, found, strict=True)
        }

    def close(self) -> None:
        try:
            self._settle()
        except OSError as error:
            logger.warning("figures of the last second may be lost: %s", error)
        self._redis.close()


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise OSError(
            errno.EHOSTUNREACH, f"the control store does not answer for figures: {type(error).__name__}"
        ) from None
