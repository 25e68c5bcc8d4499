"""What a running component sees: one party's side of one task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from training import tables
from training.channel import Channel, Tag
from training.component import ComponentError, Role, Table
from training.dsl import Job
from training.party import PartySettings
from training.store import JobStore, Metric

T = TypeVar("T")
ATTEMPT = 1


class Watcher(Protocol):
    """Who is told how a job goes on."""

    def task(self, name: str) -> None: ...

    def progress(self, task: str, done: int, total: int, note: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job runs: the party, its channels by peer, its processes, its folder."""

    settings: PartySettings
    channels: Mapping[str, Channel]
    pool: Executor
    store: JobStore
    watcher: Watcher


@dataclass(frozen=True, slots=True)
class TaskChannel:
    channel: Channel
    job: str
    task: str
    timeout_s: float

    @property
    def peer(self) -> str:
        return self.channel.peer

    async def send(self, name: str, payload: bytes, round: int = 0) -> None:
        await self.channel.send(Tag(self.job, self.task, ATTEMPT, name, round), payload)

    async def receive(self, name: str, round: int = 0) -> bytes:
        return await self.channel.receive(Tag(self.job, self.task, ATTEMPT, name, round), self.timeout_s)


@dataclass(frozen=True, slots=True)
class TaskContext:
    place: Place
    spec: Job
    task: str

    @property
    def job(self) -> str:
        return self.spec.job

    @property
    def party(self) -> str:
        return self.place.settings.party

    @property
    def role(self) -> Role:
        return self.spec.role(self.party)

    @property
    def guest(self) -> str:
        return self.spec.roles.guest

    @property
    def hosts(self) -> Sequence[str]:
        return self.spec.roles.hosts

    @property
    def registry(self) -> Path:
        return self.place.settings.registry

    def table(self, name: str) -> Table:
        found = self.place.settings.tables[name]
        try:
            return tables.read(found.path, found.id_column, found.label_column)
        except tables.TableError as error:
            raise ComponentError(str(error)) from None

    def channel(self, party: str) -> TaskChannel:
        place = self.place
        return TaskChannel(place.channels[party], self.job, self.task, place.settings.receive_timeout_s)

    async def compute(self, function: Callable[..., T], /, *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.place.pool, function, *arguments)

    def consent(self, party: str, component: str) -> bool:
        peer = self.place.settings.peers.get(party)
        return peer is not None and component in peer.consent

    def gives_mean_partial(self, party: str) -> bool:
        peer = self.place.settings.peers.get(party)
        return peer is not None and peer.mean_partial

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.place.watcher.progress(self.task, done, total, note)

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        self.place.store.add_metric(Metric(self.task, name, float(value), step))
