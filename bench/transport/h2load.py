"""h2load (Debian package nghttp2-client) as the source of load: one fixed body, fixed headers, hardly any CPU."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TAIL_BYTES = 0.02
"""Replies that were on their way when it stopped."""
_HTTP_OK = 200


class H2loadError(RuntimeError):
    """The run says nothing: calls failed, or replies were not the expected bytes."""


@dataclass(frozen=True, slots=True)
class H2loadRun:
    """The rate and the percentiles leave the warm-up out; `requests` counts all, as the server's CPU time does."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def available() -> bool:
    return shutil.which("h2load") is not None


@dataclass(frozen=True, slots=True)
class H2load:
    """The same call over and over."""

    url: str
    body: bytes
    headers: Sequence[tuple[str, str]]
    cpus: Sequence[int]

    def run(self, connections: int, streams: int, seconds: float, warmup_s: float) -> H2loadRun:
        """Raises H2loadError. A reply is an echo: it must have the length of its request."""
        with tempfile.TemporaryDirectory(prefix="h2load-") as folder:
            body, log = Path(folder) / "body", Path(folder) / "log"
            body.write_bytes(b"\x00" + len(self.body).to_bytes(4, "big") + self.body)
            fields = (("te", "trailers"), ("content-type", "application/grpc"), *self.headers)
            headers = [word for name, value in fields for word in ("-H", f"{name}: {value}")]
            times = ("-D", f"{(warmup_s + seconds) * 1000:.0f}ms")
            shape = ("-c", str(connections), "-m", str(streams), "-d", str(body), f"--log-file={log}")
            pin = ("taskset", "-c", ",".join(map(str, self.cpus))) if self.cpus and shutil.which("taskset") else ()
            command = [*pin, "h2load", *times, *shape, *headers, self.url]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return self._read(printed, log, warmup_s)

    def _read(self, printed: str, log: Path, warmup_s: float) -> H2loadRun:
        requests = _number(r"(\d+) succeeded", printed)
        lost = sum(_number(rf"(\d+) {word}", printed) for word in ("failed", "errored", "timeout"))
        replied = _number(r"\((\d+)\) data", printed)
        if lost or not requests:
            raise H2loadError(f"{lost:.0f} of {requests + lost:.0f} calls failed")
        starts, statuses, latencies = np.loadtxt(log, dtype=np.int64, ndmin=2).T  # microseconds
        if not (statuses == _HTTP_OK).all():
            raise H2loadError(f"{(statuses != _HTTP_OK).sum()} of {requests:.0f} calls failed")
        if abs(replied / (len(starts) * (len(self.body) + 5)) - 1) > _TAIL_BYTES:
            raise H2loadError(f"{replied:.0f} bytes in {len(starts)} replies: not what was sent")
        ends = starts + latencies
        measured = ends >= starts.min() + warmup_s * 1e6
        took_s = (ends.max() - starts.min()) / 1e6 - warmup_s
        p50, p99 = np.percentile(latencies[measured], (50, 99)) / 1000
        return H2loadRun(len(starts), float(measured.sum() / took_s), float(p50), float(p99))


def _number(pattern: str, printed: str) -> float:
    found = re.search(pattern, printed)
    if found is None:
        raise H2loadError(f"h2load printed nothing like {pattern}: {printed[-300:]!r}")
    return float(found[1])
