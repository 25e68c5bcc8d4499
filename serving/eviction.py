"""Makes room for a model: versions that are loaded and nobody needs are unloaded, the least recently used first."""

from __future__ import annotations

import logging

from serving.audit import AuditLog
from serving.errors import ConflictError, UnknownNameError
from serving.policy import Resident, evictions
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.publishing import Publishing

logger = logging.getLogger(__name__)

WHO = "the pool"
"""In the audit log: no person asked for it."""


class Eviction:
    """Unloads as an operator would, so that what goes is not wanted any more, on no replica."""

    def __init__(self, publishing: Publishing, pool: ModelPool, audit: AuditLog) -> None:
        self._publishing = publishing
        self._pool = pool
        self._audit = audit

    async def make_room(self, model: ModelId, lacking: int) -> bool:
        """As `reconciler.MakeRoom`. Only for a model that somebody asks for now, has bound or holds: at a start, one
        that is merely wanted takes no other's place."""
        if not self._publishing.is_needed(model):
            return False
        chosen = evictions(map(self._resident, self._pool.loaded), lacking)
        gone = [victim for victim in chosen if await self._unload(victim, model)]
        return bool(gone)

    async def _unload(self, victim: ModelId, model: ModelId) -> bool:
        try:
            async with self._audit.change(WHO, f"Unload to make room for {model}", str(victim)):
                await self._publishing.unload(victim)
        except UnknownNameError:
            return True  # another load has let it go meanwhile
        except ConflictError as error:
            logger.info("%s stays: %s", victim, error)
            return self._publishing.is_needed(victim)  # bound or held meanwhile: the next look passes it over
        logger.warning("%s was unloaded to make room for %s", victim, model)
        return True

    def _resident(self, handle: ModelHandle) -> Resident:
        pinned = handle.in_use or self._publishing.is_needed(handle.id)
        return Resident(handle.id, handle.bytes, handle.used, pinned)
