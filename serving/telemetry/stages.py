"""How long the steps of an answer take, once for each batch that runs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from serving.telemetry.exposition import counter, histogram
from serving.telemetry.histogram import Histogram


class Stages:
    """`gather`: since the oldest call came; `prepare`: the app and what memory has of the hosts; `shared`: the shared
    level; `peers`: the hosts; `finish`: the local half, merge and app; `long`: all of a round whose local half runs on
    a thread.

    `local_s` is the local half's part of `finish`, of batches that lack no host; `reply_s` the time after it: counting,
    attributions, replies encoded. `answered` counts rows, `asking` those for which a host was asked.
    """

    __slots__ = ("answered", "asking", "finish", "gather", "local_s", "long", "peers", "prepare", "reply_s", "shared")

    def __init__(self) -> None:
        self.gather, self.prepare, self.shared = Histogram(), Histogram(), Histogram()
        self.peers, self.finish, self.long = Histogram(), Histogram(), Histogram()
        self.local_s = self.reply_s = 0.0
        self.answered = 0
        self.asking = 0


def stage_metrics(stages: Stages) -> Iterable[Metric]:
    names = ("gather", "prepare", "shared", "peers", "long", "finish")
    values = [({"stage": name}, getattr(stages, name)) for name in names]
    yield histogram("tessera_stage_seconds", "Steps of an answer, once for each batch that ran.", values)
    parts = {"local": stages.local_s, "merge": max(0.0, stages.finish.sum - stages.local_s), "reply": stages.reply_s}
    seconds = [({"part": part}, one) for part, one in parts.items()]
    yield counter(
        "tessera_finish_seconds", "Local half, merge with app, replies: what ends an answer, summed.", seconds
    )
    yield counter("tessera_rows", "Rows that were executed: no repeats.", [({}, float(stages.answered))])
    yield counter("tessera_rows_asking", "Of these, rows for which a host was asked.", [({}, float(stages.asking))])
