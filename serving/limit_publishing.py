"""Limits that operators set while a node runs, in place of those of its settings: durable, the same at all replicas."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import msgspec

from serving.control import State, WantedLimit
from serving.errors import InvalidRequestError, LimitError
from serving.limit_kind import LimitKind
from serving.replicas import FOLLOW_S, Replicas
from serving.settings import RateLimit
from serving.wanted import Wanted

logger = logging.getLogger(__name__)

MAX_RATE = 1e9
MAX_COUNT = 1 << 40
MAX_NAME = 256
MAX_LIMITS = 1_000
"""Of each kind. Every change writes all of them down, and every worker keeps them."""


class LimitPublishing:
    """Every change is acknowledged when all replicas honour it, or after `FOLLOW_S`."""

    def __init__(self, wanted: Wanted, replicas: Replicas) -> None:
        self._wanted = wanted
        self._replicas = replicas

    def wanted(self, kind: LimitKind, name: str) -> RateLimit | None:
        """None where the settings count."""
        return self._wanted.state.limits.get(kind.value, {}).get(name)

    async def set(self, kind: LimitKind, name: str, limit: RateLimit) -> None:
        """All of `limit` counts, in place of all that counted before. Raises InvalidRequestError, and LimitError where
        there are as many as may be and `name` is not among them."""
        _check_name(kind, name)
        _check(kind, limit)
        wanted = WantedLimit(**msgspec.structs.asdict(limit))

        def with_limit(state: State) -> State:
            before = state.limits.get(kind.value, {})
            if name not in before and len(before) >= MAX_LIMITS:
                raise LimitError(_full(kind))
            return msgspec.structs.replace(state, limits={**state.limits, kind.value: {**before, name: wanted}})

        await self._change(with_limit)
        logger.info("%s %r has the limit %s", kind.value, name, limit)

    async def clear(self, kind: LimitKind, name: str) -> bool:
        """Return to what the settings say; whether there was anything to clear."""
        if self.wanted(kind, name) is None:
            return False

        def without(state: State) -> State:
            named = {one: limit for one, limit in state.limits.get(kind.value, {}).items() if one != name}
            return msgspec.structs.replace(state, limits={**state.limits, kind.value: named})

        await self._change(without)
        logger.info("%s %r has the limit of the settings", kind.value, name)
        return True

    async def _change(self, edit: Callable[[State], State]) -> None:
        state = await self._wanted.change(edit)
        await self._replicas.follow(state.revision, FOLLOW_S)


def _check_name(kind: LimitKind, name: str) -> None:
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidRequestError(f"name a {kind.value}, in up to {MAX_NAME} characters")
    if kind is LimitKind.RESOURCE and not name.startswith(("I_", "M_")):
        raise InvalidRequestError(f"a resource is I_ and a method or M_ and a model of FATE's, not {name!r}")


def _full(kind: LimitKind) -> str:
    return (
        f"limits are set for {MAX_LIMITS} names of the kind {kind.value}, as many as may be: clear some that are not "
        f"needed, as `tessera limit clear {kind.value} NAME` does"
    )


def _check(kind: LimitKind, limit: RateLimit) -> None:
    if limit.per_s is not None and not (math.isfinite(limit.per_s) and 0 <= limit.per_s <= MAX_RATE):
        raise InvalidRequestError(f"a rate is 0 to {MAX_RATE:g} rows a second, not {limit.per_s:g}")
    if limit.burst is not None and limit.per_s is None:
        raise InvalidRequestError("a burst needs a rate")
    if limit.across_nodes and limit.per_s is None:
        raise InvalidRequestError("what nodes share is a rate: give one")
    for what, count in (("burst", limit.burst), ("number of calls at once", limit.concurrent)):
        if count is not None and not 0 < count <= MAX_COUNT:
            raise InvalidRequestError(f"a {what} is 1 to 2^40, not {count}")
    if kind is LimitKind.RESOURCE and limit.concurrent is not None:
        raise InvalidRequestError("calls at once are not counted by resource")
