"""A host on a real loopback port, and what a guest needs to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loaders.catalog import load_servable, loader_for
from loaders.merge import merge_rule
from loaders.registry import open_half
from serving.admission import make_admission
from serving.features.memory import MemoryFeatureSource
from serving.frontdoor.answer import answering
from serving.frontdoor.federation import INFER, FederationDoor
from serving.host import HostSide
from serving.limits import make_limiter
from serving.peers.peer import Peer
from serving.pool import ModelHandle, ModelPool
from serving.settings import Limits, PeerSettings, Settings
from serving.telemetry.requests import RequestFigures
from serving.transport import BytesHandler, Channel, Server, Transport, channel, server
from tests.artifacts import make_bound_pair

USERS = {"u1": {"x": 1.0, "y": 0.5}, "u2": {"x": -2.0, "y": 4.0}, "broken": {"x": 1.0}}
WEIGHTS = {"x": 2.0, "y": -1.0}


def partial(user: str) -> float:
    return sum(weight * USERS[user][name] for name, weight in WEIGHTS.items())


@dataclass
class Shop:
    """The host `shop`. `asked` holds the user ids of every call; `handle` is the guest's half."""

    peer: Peer
    link: Channel
    server: Server
    handle: ModelHandle
    asked: list[list[str]]
    features: dict[str, Mapping[str, float]]
    answering_now: asyncio.Event
    """While it is not set, the host stalls."""
    door: FederationDoor


def loaded(root: Path, party: str) -> ModelHandle:
    artifact = open_half(root, "m", "1", party)
    loader = loader_for(artifact)
    servable = load_servable(loader)
    return ModelHandle(artifact, servable, merge_rule(artifact.manifest.merge, servable), loader.estimate())


Halves = tuple[ModelHandle, ModelHandle]


def halves(folder: Path, stand_ins: Mapping[str, list[float]] = MappingProxyType({})) -> Halves:
    make_bound_pair(
        folder / "bank",
        folder / "shop",
        model="m",
        version="1",
        guest="bank",
        host="shop",
        guest_weights={"a": 1.0},
        host_weights=WEIGHTS,
        intercept=0.0,
        stand_ins=stand_ins,
    )
    return loaded(folder / "bank", "bank"), loaded(folder / "shop", "shop")


@asynccontextmanager
async def served(handler: BytesHandler) -> AsyncIterator[tuple[Channel, Server]]:
    """`handler` as Federation/Infer on a loopback port."""
    port = server(Transport.NATIVE)
    port.add_bytes_handler(INFER, handler)
    link = channel(Transport.NATIVE, f"127.0.0.1:{port.add_port('127.0.0.1:0')}")
    await port.start()
    try:
        yield link, port
    finally:
        await link.close()
        await port.stop(0)


@asynccontextmanager
async def shop(
    folder: Path,
    caller: str = "bank",
    max_age_s: float | None = None,
    made: Callable[[Path], Halves] = halves,
    allowed: PeerSettings | None = None,
) -> AsyncIterator[Shop]:
    """Answers `caller`, who connects as whoever connects does. `made`: the halves of guest and host; `allowed`: what
    the caller may."""
    guest, host = await asyncio.to_thread(made, folder)
    pool = ModelPool(1 << 20)
    pool.put(host)
    features = dict(USERS)
    asked: list[list[str]] = []
    answering_now = asyncio.Event()
    answering_now.set()

    class Listening(MemoryFeatureSource):
        async def lookup(self, user_ids, signature):
            asked.append(list(user_ids))
            await answering_now.wait()
            return await super().lookup(user_ids, signature)

        def at_hand(self, signature):
            look_up = super().at_hand(signature) if answering_now.is_set() else None

            def looked_up(user_ids):
                asked.append(list(user_ids))
                return look_up(user_ids)

            return looked_up if look_up else None

    settings = Settings(
        party="shop",
        state_dir=str(folder),
        registry="",
        limits=Limits(max_batch_rows=50),
        peers={caller: allowed or PeerSettings()},
    )
    admission = await asyncio.to_thread(make_admission, settings, b"s" * 32, make_limiter(settings).parties)
    side = HostSide(pool, {"default": Listening(features, max_age_s)}, admission)
    door = FederationDoor(side, settings, lambda call: caller)
    async with served(answering(door.infer, RequestFigures().of("tessera.v1", "Infer"))) as (link, port):
        yield Shop(Peer("shop", link), link, port, guest, asked, features, answering_now, door)


async def collected(remote, host, users, timeout_s=5.0):
    """The partials of these users, by the steps of a request."""
    lookup = remote.look("shop", host.handle, users)
    await remote.find(lookup)
    if not lookup.is_whole:
        await remote.ask(lookup, asyncio.get_running_loop().time() + timeout_s)
    return lookup.partials()
