"""One scrape shows all workers of a node: whoever is asked adds what the others have told.

Samples get the label `replica`, so that a worker that begins anew is a counter that begins anew, as Prometheus expects.
While a worker and its successor run under one name, what is shown under it is the successor's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from operator import attrgetter

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.telemetry.exposition import Exposition
from serving.telemetry.worker_files import Others, Teller, Told


class SharedExposition:
    """Of one worker; `others` tell theirs."""

    def __init__(self, own: Exposition, teller: Teller, others: Others) -> None:
        self._own = own
        self._teller = teller
        self._others = others

    async def text(self) -> bytes:
        """Its own metrics as they are now, the others' as they were a second ago."""
        own = Told(self._teller.name, self._teller.generation, self._own.text())
        told = sorted([own, *await self._others()], key=attrgetter("generation"))
        return await asyncio.to_thread(merged, {one.name: one.said for one in told})


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
