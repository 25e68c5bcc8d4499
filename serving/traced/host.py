"""What this party's work for other parties leaves of spans."""

from __future__ import annotations

from collections.abc import Sequence

from loaders.signature import Signature
from serving.features.source import FeatureRows, FeatureSource, LookUp
from serving.host import HostSide, Partials
from serving.pool import ModelHandle
from serving.telemetry.spans import HERE


class TracedHostSide(HostSide):
    async def _partials(self, handle: ModelHandle, rows: FeatureRows) -> Partials:
        span = HERE.get()
        if span is None:
            return await super()._partials(handle, rows)
        span.attributes |= {"tessera.model": handle.id.model, "tessera.version": handle.id.version}
        with span.step("local") as step:
            step.attributes["tessera.rows"] = rows.batch.rows
            return await super()._partials(handle, rows)


class TracedSource(FeatureSource):
    def __init__(self, source: FeatureSource) -> None:
        self._source = source

    async def open(self) -> None:
        await self._source.open()

    def check(self, signature: Signature) -> None:
        self._source.check(signature)

    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        span = HERE.get()
        if span is None:
            return await self._source.lookup(user_ids, signature)
        with span.step("features") as step:
            rows = await self._source.lookup(user_ids, signature)
            step.attributes |= {"tessera.rows": len(user_ids), "tessera.found": int(rows.found.sum())}
        return rows

    def at_hand(self, signature: Signature) -> LookUp | None:
        """Not for what is traced: steps belong to look-ups and halves that run in a task."""
        return self._source.at_hand(signature) if HERE.get() is None else None

    async def close(self) -> None:
        await self._source.close()
