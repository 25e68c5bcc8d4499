"""Latencies in a HdrHistogram: three significant digits from 1 µs to an hour, mergeable over processes."""

from __future__ import annotations

from collections import defaultdict

from hdrh.histogram import HdrHistogram

from bench.load.results import Percentiles

_LOWEST_NS, _HIGHEST_NS, _DIGITS = 1_000, 3_600 * 10**9, 3
_BITS = 11
"""What a histogram of three digits keeps of a number."""


class Latencies:
    """Durations are given in seconds, and told in milliseconds."""

    def __init__(self, histogram: HdrHistogram | None = None) -> None:
        self._folded = histogram or HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)
        self._counts: dict[int, int] = defaultdict(int)  # not folded yet: the histogram takes microseconds a value

    @classmethod
    def decode(cls, encoded: bytes) -> Latencies:
        merged = cls()
        merged._histogram.decode_and_add(encoded)
        return merged

    def encode(self) -> bytes:
        """The standard compressed form (base64), which other HdrHistogram tools read."""
        return bytes(self._histogram.encode())

    def record(self, seconds: float) -> None:
        value = min(_HIGHEST_NS, max(_LOWEST_NS, round(seconds * 1e9)))
        shift = max(0, value.bit_length() - _BITS)
        self._counts[value >> shift << shift] += 1

    @property
    def _histogram(self) -> HdrHistogram:
        for value, count in self._counts.items():
            self._folded.record_value(value, count)
        self._counts.clear()
        return self._folded

    def add(self, other: Latencies) -> None:
        self._histogram.add(other._histogram)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def at(self, percentile: float) -> float:
        """Milliseconds that this share, in percent, did not pass; 0 without any."""
        return float(self._histogram.get_value_at_percentile(percentile)) / 1e6

    def percentiles(self) -> Percentiles | None:
        """None without any."""
        if not len(self):
            return None
        mean = float(self._histogram.get_mean_value()) / 1e6
        top = float(self._histogram.get_max_value()) / 1e6
        p50, p90, p99, p99_9 = (round(self.at(share), 4) for share in (50, 90, 99, 99.9))
        return Percentiles(p50=p50, p90=p90, p99=p99, p99_9=p99_9, max=round(top, 4), mean=round(mean, 4))
