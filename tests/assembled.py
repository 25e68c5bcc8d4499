"""Whole nodes, as assembly builds them, in the event loop of a test: ports on loopback, files, no process of its own.

For what a test wants to look at from within, and for several nodes where processes would take too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bench.harness.population import GUEST, MODEL, SERVICE, VERSION, host_name, write_model, write_users
from serving.assembly import assemble
from serving.node import Node, NodeState
from serving.settings_file import load
from serving.transport import Transport, channel
from tessera.v1 import admin_pb2, admin_pb2_grpc, inference_pb2_grpc
from tests.nodes import free_port
from tests.proxy import Proxy

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
    """`guest` asks `hosts`, the first of them through `proxy`; the linear model of population.py is online as service
    `s`."""

    guest: Live
    hosts: list[Live]
    proxy: Proxy

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[inference_pb2_grpc.InferenceStub]:
        """A client of the guest's service port."""
        link = channel(Transport.NATIVE, self.guest.address("service"))
        try:
            yield inference_pb2_grpc.InferenceStub(link.stub_channel)
        finally:
            await link.close()


async def start(config: Path, environ: Mapping[str, str] = MappingProxyType({})) -> Live:
    """Returns when the node is ready."""
    node = await assemble(await asyncio.to_thread(load, config, environ))
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(START_S):
        while node.state is not NodeState.READY:
            if running.done():
                running.result()
            await asyncio.sleep(0.001)
    return Live(node, running)


@asynccontextmanager
async def parties(
    folder: Path,
    *,
    hosts: int,
    users: int = 200,
    guest: str = "",
    host: str = "",
    environ: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Parties]:
    """`guest` and `host` are further settings, as TOML tables, `environ` of all as the environment has them. There is
    no shared level, unless its URL is given."""
    ports = [free_port() for _ in range(hosts)]
    proxy = Proxy(ports[0])
    async with AsyncExitStack() as stack:
        await proxy.start()
        stack.push_async_callback(proxy.stop)
        configs = await asyncio.to_thread(_write, folder, ports, users, host)
        configs.append(_guest_config(folder, [proxy.port, *ports[1:]], guest))
        registries = [config.parent / "registry" for config in configs]
        await asyncio.to_thread(write_model, registries[-1], registries[:-1])
        live: list[Live] = []
        for config in configs:
            live.append(await start(config, environ))
            stack.push_async_callback(live[-1].stop)
        await _publish(live[-1].address("admin"))
        yield Parties(live[-1], live[:-1], proxy)


def _write(folder: Path, ports: Sequence[int], users: int, settings: str) -> list[Path]:
    """The configurations of the hosts, and their users."""
    configs = []
    for index, port in enumerate(ports):
        asked = f"plaintext_caller = '{GUEST}'\n[peers.{GUEST}]\nmay_load = ['*']\n"
        asked += "purposes = ['infer', 'warmup', 'shadow']\n"
        features = "[features.default]\npath = 'users.parquet'\n"
        config = _config(folder / host_name(index), host_name(index), f"{asked}{features}{settings}", port)
        write_users(config.parent / "users.parquet", index, users)
        configs.append(config)
    return configs


def _guest_config(folder: Path, ports: Sequence[int], settings: str) -> Path:
    peers = "".join(f"[peers.{host_name(index)}]\naddress = '127.0.0.1:{port}'\n" for index, port in enumerate(ports))
    return _config(folder / GUEST, GUEST, f"{peers}{settings}", free_port())


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
