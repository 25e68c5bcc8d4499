"""How long the steps of an answer take, once for each batch that runs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from serving.telemetry.exposition import counter, histogram
from serving.telemetry.histogram import Histogram


class Stages:
    """`gather`: since the oldest call came; `prepare`: the app and what memory has of the hosts; `shared`: the shared
    level; `peers`: the hosts; `finish`: the local half, merge, app and replies; `long`: all of a round whose local half
    runs on a thread.

    `answered` counts rows, `asking` those for which a host was asked.
    """

    __slots__ = ("answered", "asking", "finish", "gather", "long", "peers", "prepare", "shared")

    def __init__(self) -> None:
        self.gather, self.prepare, self.shared = Histogram(), Histogram(), Histogram()
        self.peers, self.finish, self.long = Histogram(), Histogram(), Histogram()
        self.answered = 0
        self.asking = 0


def stage_metrics(stages: Stages) -> Iterable[Metric]:
    names = ("gather", "prepare", "shared", "peers", "long", "finish")
    values = [({"stage": name}, getattr(stages, name)) for name in names]
    yield histogram("tessera_stage_seconds", "Steps of an answer, once for each batch that ran.", values)
    yield counter("tessera_rows", "Rows that were executed: no repeats.", [({}, float(stages.answered))])
    yield counter("tessera_rows_asking", "Of these, rows for which a host was asked.", [({}, float(stages.asking))])
