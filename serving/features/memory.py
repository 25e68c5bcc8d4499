"""Features held in memory: the twin of the other sources, for tests and for one-process set-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from loaders.signature import Batch, Signature
from serving.features.source import FeatureRows, FeatureSource, FeatureSourceError


class MemoryFeatureSource(FeatureSource):
    """`rows` maps a user id to features by name."""

    def __init__(self, rows: Mapping[str, Mapping[str, float]], max_age_s: float | None = None) -> None:
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
        found = np.array([user_id in self._rows for user_id in user_ids], dtype=np.bool_)
        rows = [signature.row(self._rows.get(user_id, {}), {}, ignore_unknown=True) for user_id in user_ids]
        numbers = np.concatenate([row.numbers for row in rows])
        texts = np.concatenate([row.texts for row in rows])
        return FeatureRows(Batch(numbers, texts), found, self._max_age_s)

    async def close(self) -> None:
        """Nothing to close."""
