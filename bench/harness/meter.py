"""CPU time, memory and counters of the processes that answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from bench.harness.counters import Counters, read
from bench.harness.parties import Parties


@dataclass(frozen=True, slots=True)
class Usage:
    """Between two looks: CPU seconds by process, and what nodes counted, by party; resident bytes at the second.
    `guest` and `hosts` are parties. One whose worker was another at the end has counted nothing."""

    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]
    counted: Mapping[str, Counters]
    guest: str
    hosts: tuple[str, ...]


class Meter:
    """Looks at its parties when made and when read. A process that ended in between counts until then as far as known.
    What it costs to read counters is in no process's time."""

    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self._processes = parties.processes()
        self._counters = read(parties.nodes)
        self._cpu_s = {name: _cpu_s(process) for name, process in self._processes.items()}

    def read(self) -> Usage:
        after = {name: _cpu_s(process) for name, process in self._processes.items()}
        cpu_s = {name: max(0.0, after[name] - before) for name, before in self._cpu_s.items()}
        rss = {name: _rss_bytes(process) for name, process in self._processes.items()}
        hosts = tuple([host.party for host in self._parties.hosts])
        return Usage(cpu_s, rss, self._counted(), self._parties.guest.party, hosts)

    def _counted(self) -> dict[str, Counters]:
        both = {party: (self._counters.get(party), now) for party, now in read(self._parties.nodes).items()}
        grown = {party: now.since(before) for party, (before, now) in both.items() if before is not None}
        return {party: one for party, one in grown.items() if one is not None}


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
