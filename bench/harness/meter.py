"""CPU time and memory of the processes that answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Between two looks: CPU seconds by process; resident bytes at the second."""

    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]


class Meter:
    """Looks at its processes when made and when read. One that ended in between counts until then as far as known."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes
        self._before = {name: _cpu_s(process) for name, process in processes.items()}

    def read(self) -> Usage:
        after = {name: _cpu_s(process) for name, process in self._processes.items()}
        cpu_s = {name: max(0.0, after[name] - before) for name, before in self._before.items()}
        return Usage(cpu_s, {name: _rss_bytes(process) for name, process in self._processes.items()})


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
