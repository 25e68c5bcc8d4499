"""One scrape shows all workers of a node: each keeps its metrics in a file, and whoever is asked adds the others'.

Samples get the label `replica`, so that a worker that begins anew is a counter that begins anew, as Prometheus expects.
While a worker and its successor run under one name, what is shown under it is the successor's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from urllib.parse import quote, unquote

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.disk import remove_older
from serving.telemetry.exposition import Exposition

logger = logging.getLogger(__name__)

WRITE_S = 1.0
STALE_S = 5.0
"""The file of a worker that is gone."""


_LITTER_S = 12 * STALE_S


class SharedExposition:
    """Of the worker `name`, among those that share the folder; `generation` is greater than its predecessors'. `clock`
    is Unix seconds; `pause` waits for some."""

    def __init__(
        self,
        own: Exposition,
        folder: Path,
        name: str,
        generation: str,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._own = own
        self._path = folder / f"{quote(name, safe='')}@{generation}.prom"
        self._name = name
        self._generation = generation
        self._clock = clock
        self._pause = pause
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def text(self) -> bytes:
        """Its own metrics as they are now, the others' as they were a second ago."""
        own = self._own.text()
        return await asyncio.to_thread(self._merged, own)

    async def _keep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._write, self._own.text())
            except OSError as error:
                logger.error("the metrics cannot be shared with the other workers: %s", error)
            await self._pause(WRITE_S)

    def _write(self, text: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.draft")
        draft.write_bytes(text)
        os.utime(draft, (self._clock(), self._clock()))
        draft.replace(self._path)
        remove_older(self._path.parent, self._clock() - _LITTER_S)

    def _merged(self, own: bytes) -> bytes:
        newest = {self._name: (self._generation, own)}
        for path in self._path.parent.glob("*.prom"):
            name, _, generation = path.stem.partition("@")
            try:
                if path != self._path and path.stat().st_mtime > self._clock() - STALE_S:
                    found = (generation, path.read_bytes())
                    newest[unquote(name)] = max(found, newest.get(unquote(name), found))
            except OSError:
                continue  # gone meanwhile
        return merged({name: text for name, (_, text) in newest.items()})


def merged(texts: dict[str, bytes]) -> bytes:
    """One exposition of several, by replica."""
    families: dict[str, Metric] = {}
    for replica, text in sorted(texts.items()):
        for found in text_string_to_metric_families(text.decode()):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            family.samples += [
                sample._replace(labels={**sample.labels, "replica": replica}) for sample in found.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
