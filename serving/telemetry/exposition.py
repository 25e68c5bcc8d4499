"""Everything a node counts, in Prometheus's text form. What is counted stays where it is and is read when asked for.

Names follow https://prometheus.io/docs/practices/naming/: `tessera_` + what + unit, counters end in `_total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serving.telemetry.histogram import Histogram
from serving.telemetry.requests import RequestFigures
from serving.version import SOFTWARE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Reading = Callable[[], Iterable[Metric]]
"""One part's metrics as they are now; cheap, on the event loop."""

Labels = dict[str, str]


class _Readings(Collector):
    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        for reading in self._readings:
            yield from reading()


class Exposition:
    """The registry of one process: its readings, and what prometheus_client knows of any process."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings((_build, *readings)))
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)


def counter(name: str, about: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """`name` without its `_total`."""
    return _filled(CounterMetricFamily, name, about, values)


def gauge(name: str, about: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    return _filled(GaugeMetricFamily, name, about, values)


def histogram(name: str, about: str, values: Iterable[tuple[Labels, Histogram]]) -> Metric:
    pairs = list(values)
    family = HistogramMetricFamily(name, about, labels=list(pairs[0][0]) if pairs else [])
    for labels, one in pairs:
        family.add_metric(list(labels.values()), list(one.cumulative()), one.sum)
    return family


def _filled(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    about: str,
    values: Iterable[tuple[Labels, float]],
) -> Metric:
    pairs = list(values)
    family = kind(name, about, labels=list(pairs[0][0]) if pairs else [])
    for labels, value in pairs:
        family.add_metric(list(labels.values()), value)
    return family


def request_metrics(figures: RequestFigures) -> Iterable[Metric]:
    methods = [({"protocol": protocol, "method": method}, one) for (protocol, method), one in figures.methods.items()]
    yield gauge(
        "tessera_requests_running", "Requests being answered.", [(labels, one.running) for labels, one in methods]
    )
    seconds = [({**labels, "code": code.name}, one) for labels, each in methods for code, one in each.seconds.items()]
    yield histogram("tessera_request_seconds", "From request to reply, by how it ended.", seconds)


def _build() -> Iterable[Metric]:
    yield gauge("tessera_build_info", "Always 1.", [({"version": SOFTWARE}, 1.0)])
