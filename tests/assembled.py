"""Whole nodes, as assembly builds them, in the event loop of a test: ports on loopback, files, no process of its own.

For what a test wants to look at from within, and for several nodes where processes would take too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness.population import GUEST, MODEL, SERVICE, VERSION, host_name, write_model, write_users
from serving.assembly import assemble
from serving.node import Node, NodeState
from serving.settings_file import load
from serving.transport import Transport, channel
from tessera.v1 import admin_pb2, admin_pb2_grpc, inference_pb2_grpc
from tests.nodes import free_port

START_S = 20.0


@dataclass(frozen=True, slots=True)
class Live:
    """A node that is ready, and what serves it."""

    node: Node
    running: asyncio.Task[None]

    def address(self, port: str) -> str:
        return self.node.addresses[port]

    async def stop(self) -> None:
        self.node.ask_to_stop()
        await self.running


@dataclass(frozen=True, slots=True)
class Parties:
    """`guest` asks `hosts`; the linear model of population.py is online as service `s`."""

    guest: Live
    hosts: list[Live]
    configs: list[Path]
    """Of the hosts, for `start`."""

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[inference_pb2_grpc.InferenceStub]:
        """A client of the guest's service port."""
        link = channel(Transport.NATIVE, self.guest.address("service"))
        try:
            yield inference_pb2_grpc.InferenceStub(link.stub_channel)
        finally:
            await link.close()


async def start(config: Path) -> Live:
    """Returns when the node is ready."""
    node = await assemble(await asyncio.to_thread(load, config, {}))
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(START_S):
        while node.state is not NodeState.READY:
            if running.done():
                running.result()
            await asyncio.sleep(0.001)
    return Live(node, running)


@asynccontextmanager
async def parties(
    folder: Path, *, hosts: int, users: int = 200, guest: str = "", host: str = ""
) -> AsyncIterator[Parties]:
    """`guest` and `host` are further settings, as TOML tables. There is no shared level."""
    asker, configs = await asyncio.to_thread(_write, folder, hosts, users, (guest, host))
    async with AsyncExitStack() as stack:
        *others, own = [await start(config) for config in (*configs, asker)]
        parties = Parties(own, others, configs)
        stack.push_async_callback(_stop, parties)
        await _publish(own.address("admin"))
        yield parties


async def _stop(parties: Parties) -> None:
    for one in (parties.guest, *parties.hosts):
        if not one.running.done():
            await one.stop()


def _write(folder: Path, hosts: int, users: int, further: tuple[str, str]) -> tuple[Path, list[Path]]:
    """The configuration of the guest and those of the hosts, and all that they name."""
    ports = [free_port() for _ in range(hosts)]
    peers = "".join(f"[peers.{host_name(index)}]\naddress = '127.0.0.1:{port}'\n" for index, port in enumerate(ports))
    asker = _config(folder / GUEST, GUEST, f"{peers}{further[0]}", free_port())
    answering = (
        f"plaintext_caller = '{GUEST}'\n[peers.{GUEST}]\nmay_load = ['*']\n[features.default]\npath = 'users.parquet'\n"
    )
    configs = [
        _config(folder / host_name(index), host_name(index), f"{answering}{further[1]}", port)
        for index, port in enumerate(ports)
    ]
    for index, config in enumerate(configs):
        write_users(config.parent / "users.parquet", index, users)
    write_model(asker.parent / "registry", [config.parent / "registry" for config in configs])
    return asker, configs


def _config(folder: Path, party: str, settings: str, party_port: int) -> Path:
    (folder / "registry").mkdir(parents=True)
    config = folder / "serving.toml"
    config.write_text(
        f"party = '{party}'\nstate_dir = 'state'\nregistry = 'registry'\n{settings}\n"
        f"[ports]\nservice = '127.0.0.1:0'\nparty = '127.0.0.1:{party_port}'\nadmin = '127.0.0.1:0'\n"
        "http = '127.0.0.1:0'\n"
    )
    return config


async def _publish(address: str) -> None:
    link = channel(Transport.NATIVE, address)
    try:
        stub = admin_pb2_grpc.AdminStub(link.stub_channel)
        await stub.PublishLoad(admin_pb2.PublishLoadRequest(model=MODEL, version=VERSION), timeout=START_S)
        variants = [admin_pb2.VariantWeight(model=MODEL, version=VERSION, weight=10_000)]
        await stub.PublishOnline(admin_pb2.PublishOnlineRequest(service=SERVICE, variants=variants), timeout=START_S)
    finally:
        await link.close()
