"""Parties of one job inside one process: the real component over memory channels, with what was sent kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from training.channel import Channel, Tag
from training.channels.meeting import Meeting
from training.channels.memory import MemoryHub
from training.component import Component, Role, Table, Value
from training.together import together

JOB, TIMEOUT_S = "job", 20.0


@dataclass
class Scoped:
    peer: str
    channel: Channel
    sent: list[tuple[str, int, bytes]] = field(default_factory=list)
    damage: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)

    async def send(self, name: str, payload: bytes, round: int = 0) -> None:
        payload = self.damage.get(name, bytes)(payload)
        self.sent.append((name, round, payload))
        await self.channel.send(Tag(JOB, "task", 1, name, round), payload)

    async def receive(self, name: str, round: int = 0) -> bytes:
        return await self.channel.receive(Tag(JOB, "task", 1, name, round), TIMEOUT_S)


@dataclass
class Member:
    """One party's context."""

    party: str
    role: Role
    guest: str
    hosts: Sequence[str]
    channels: dict[str, Scoped]
    job: str = JOB
    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    notes: list[tuple[int, int, str]] = field(default_factory=list)
    registry: Path = Path("registry")
    tables: dict[str, Table] = field(default_factory=dict)
    consents: bool = True
    gives_means: bool = False

    def table(self, name: str) -> Table:
        return self.tables[name]

    def channel(self, party: str) -> Scoped:
        return self.channels[party]

    async def compute(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    def consent(self, party: str, component: str) -> bool:
        return self.consents

    def gives_mean_partial(self, party: str) -> bool:
        return self.gives_means

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.notes.append((done, total, note))

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        self.metrics.append((name, value, step))


@asynccontextmanager
async def parties(*hosts: str) -> AsyncIterator[dict[str, Member]]:
    """The guest `guest` and the hosts, connected."""
    hub = MemoryHub()
    pairs = [(host, "guest") for host in hosts] + [("guest", host) for host in hosts]
    channels = {pair: hub.channel(Meeting(JOB, *pair)) for pair in pairs}
    await together(*(channel.open("digest", TIMEOUT_S) for channel in channels.values()))
    members = {
        name: Member(
            name,
            Role.GUEST if name == "guest" else Role.HOST,
            "guest",
            hosts,
            {there: Scoped(there, channel) for (here, there), channel in channels.items() if here == name},
        )
        for name in ("guest", *hosts)
    }
    try:
        yield members
    finally:
        await asyncio.gather(*(channel.close() for channel in channels.values()), return_exceptions=True)


async def run_all(
    component: Component,
    members: Mapping[str, Member],
    inputs: Mapping[str, Mapping[str, Value]],
    parameters: msgspec.Struct,
) -> dict[str, Mapping[str, Value] | BaseException]:
    """Every party's outputs, or what it raised."""
    outcomes = await asyncio.gather(
        *(component.run(members[name], parameters, inputs[name]) for name in members), return_exceptions=True
    )
    return dict(zip(members, outcomes, strict=True))
