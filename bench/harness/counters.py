"""What a node counts, read from its HTTP port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.nodes import PartyNode

Labels = frozenset[tuple[str, str]]
_STARTED = "process_start_time_seconds"
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Counters:
    """Values by name and labels: at one moment, or what was added between two."""

    values: Mapping[tuple[str, Labels], float]

    def total(self, name: str, **labels: str) -> float:
        """Over all that have these labels."""
        return sum(value for has, value in self._named(name) if labels.items() <= has)

    def mean(self, name: str, **labels: str) -> float:
        """Of what a histogram observed; 0 for nothing."""
        count = self.total(f"{name}_count", **labels)
        return self.total(f"{name}_sum", **labels) / count if count else 0.0

    def at_most(self, name: str, share: float, **labels: str) -> float:
        """The upper bound of the bucket that holds this quantile of what a histogram observed; 0 for nothing."""
        bounds = {dict(has)["le"] for has, _ in self._named(f"{name}_bucket")}
        wanted = share * self.total(f"{name}_count", **labels)
        for bound in sorted(bounds, key=float):
            if wanted and self.total(f"{name}_bucket", le=bound, **labels) >= wanted:
                return float(bound)
        return 0.0

    def since(self, before: Counters) -> Counters | None:
        """None when the process began anew in between."""
        if self.total(_STARTED) != before.total(_STARTED):
            return None
        return Counters({key: value - before.values.get(key, 0.0) for key, value in self.values.items()})

    def _named(self, name: str) -> Iterable[tuple[Labels, float]]:
        return ((has, value) for (known, has), value in self.values.items() if known == name)


def parsed(exposition: str) -> Counters:
    """Of Prometheus's text form."""
    families = text_string_to_metric_families(exposition)
    samples = (sample for family in families for sample in family.samples)
    return Counters({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})


def read(nodes: Iterable[PartyNode]) -> dict[str, Counters]:
    """By party; one that does not answer is left out."""
    found = {}
    for node in nodes:
        try:
            reply = node.http("GET", "/metrics", timeout=_TIMEOUT_S)
        except (httpx.HTTPError, KeyError):
            continue
        found[node.party] = parsed(reply.text)
    return found
