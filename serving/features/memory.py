"""Features held in memory: the twin of the other sources, for tests and for one-process set-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from loaders.signature import Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError, LookUp, gathered


class MemoryFeatureSource(FeatureSource):
    """`rows` maps a user id to features by name: numbers and texts."""

    def __init__(self, rows: Mapping[str, Mapping[str, Any]], max_age_s: float | None = None) -> None:
        self._rows = rows
        self._max_age_s = max_age_s

    async def open(self) -> None:
        """Nothing to open."""

    def check(self, signature: Signature) -> None:
        known = {name for row in self._rows.values() for name in row}
        absent = [name for name in (*signature.numbers, *signature.texts) if name not in known]
        if absent:
            raise FeatureSourceError(f"the features in memory lack {', '.join(map(repr, absent))}")

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        self.check(signature)
        return self._taken(signature, user_ids)

    def at_hand(self, signature: Signature) -> LookUp | None:
        self.check(signature)
        return partial(self._taken, signature)

    def _taken(self, signature: Signature, user_ids: Sequence[str]) -> FeatureRows:
        users = [self._rows.get(user_id) for user_id in user_ids]
        return gathered("the features in memory", users, signature, self._max_age_s)

    async def close(self) -> None:
        """Nothing to close."""
