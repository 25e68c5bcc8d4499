"""How long the steps of an answer take, once for each batch that runs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from serving.telemetry.exposition import counter, histogram
from serving.telemetry.histogram import Histogram

STAGES = ("gather", "prepare", "shared", "peers", "long", "app", "local", "merge", "reply")


class Stages:
    """`gather`: since the oldest call came; `prepare`: what memory has of the hosts; `shared`: the shared level;
    `peers`: the hosts; `long`: all of a round whose local half runs on a thread; `app`: both calls of it; `local`: the
    local half, on the event loop; `merge`; `reply`: what follows: counting, attributions, replies encoded. They are
    parts of an answer that follow each other, but for `app`, of which one part comes before `prepare` and the other
    after `merge`, and for `local`, which may run while hosts answer.

    `answered` counts rows, `asking` those for which a host was asked.
    """

    __slots__ = ("answered", "asking", *STAGES)

    def __init__(self) -> None:
        self.gather, self.prepare, self.shared = Histogram(), Histogram(), Histogram()
        self.peers, self.long, self.app = Histogram(), Histogram(), Histogram()
        self.local, self.merge, self.reply = Histogram(), Histogram(), Histogram()
        self.answered = 0
        self.asking = 0

    def took(self, app_s: float, local_s: float, merge_s: float) -> None:
        """A round that is answered; 0 for a local half on a thread."""
        self.app.observe(app_s)
        if local_s:
            self.local.observe(local_s)
        self.merge.observe(merge_s)


def stage_metrics(stages: Stages) -> Iterable[Metric]:
    values = [({"stage": name}, getattr(stages, name)) for name in STAGES]
    yield histogram("tessera_stage_seconds", "Steps of an answer, once for each batch that ran.", values)
    yield counter("tessera_rows", "Rows that were executed: no repeats.", [({}, float(stages.answered))])
    yield counter("tessera_rows_asking", "Of these, rows for which a host was asked.", [({}, float(stages.asking))])
