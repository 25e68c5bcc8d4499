"""Holds: what another party's bindings need loaded here, and until when."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from serving.control import ControlStore, Hold, State
from serving.pool import ModelId

logger = logging.getLogger(__name__)

HOLD_TTL_S = 600
"""Seconds for which a guest asks; it renews at a third of that."""


class Holds:
    """The holds that this party has granted. `change` makes an edit of the state durable; `clock` is Unix seconds."""

    def __init__(
        self,
        store: ControlStore,
        change: Callable[[Callable[[State], State]], Awaitable[State]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._change = change
        self._clock = clock

    def of(self, model: ModelId) -> list[Hold]:
        """Holds on a version that have not expired."""
        now_s = self._clock()
        return [hold for hold in self._store.read().holds if hold_model(hold) == model and hold.expires_s > now_s]

    async def grant(self, hold: Hold) -> None:
        """Keep or renew a hold; one per (party, service, model, version)."""
        await self._change(lambda state: msgspec.structs.replace(state, holds=(*_others(state, hold), hold)))

    async def release(self, hold: Hold) -> None:
        """Forget a hold; one that is not there is fine."""
        if len(_others(self._store.read(), hold)) < len(self._store.read().holds):
            await self._change(lambda state: msgspec.structs.replace(state, holds=_others(state, hold)))

    async def sweep(self) -> None:
        """Forget expired holds, loudly: a guest that did not renew may have lost its way here."""
        now_s = self._clock()
        expired = [hold for hold in self._store.read().holds if hold.expires_s <= now_s]
        for hold in expired:
            logger.warning("the hold of party %s on %s has expired", hold.party, hold_model(hold))
            await self.release(hold)


def hold_model(hold: Hold) -> ModelId:
    return ModelId(hold.model, hold.version)


def _others(state: State, hold: Hold) -> tuple[Hold, ...]:
    def key(one: Hold) -> tuple[str, str, str, str]:
        return (one.party, one.service, one.model, one.version)

    return tuple(one for one in state.holds if key(one) != key(hold))
