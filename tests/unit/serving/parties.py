"""The control planes of parties in this process, talking over real loopback ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.access import Access
from serving.activity import Activity, IdSeal
from serving.activity_store import MemoryActivityStore
from serving.admission import make_admission
from serving.app_shelf import AppShelf
from serving.audit import AuditLog
from serving.cache.memory import MemoryTier
from serving.cache.tiered import TieredCache
from serving.control import ControlStore, MemoryControlStore
from serving.eviction import Eviction
from serving.features.memory import MemoryFeatureSource
from serving.figures.effects import Effects
from serving.figures.store import MemoryFigureStore
from serving.frontdoor import admin, federation
from serving.frontdoor.admin import AdminNode
from serving.frontdoor.federation import FederationNode
from serving.host import HostSide
from serving.limits import Limiter, make_limiter
from serving.peer_book import PeerBook
from serving.peers.peer import Peer
from serving.peers.remote import RemotePartials
from serving.pool import ModelPool
from serving.prefetch import Prefetching
from serving.publishing import Publishing
from serving.reconciler import Reconciler
from serving.replicas import Replicas
from serving.settings import AppSettings, CacheSettings, PeerSettings, RateLimit, Settings
from serving.telemetry.requests import RequestFigures
from serving.transport import Channel, ServerOptions, Transport, channel, server
from serving.warming import Warming
from tessera.v1 import admin_pb2_grpc

SECRET = b"s" * 32
FEATURES = MemoryFeatureSource({"u1": {"x": 1.0}})


@dataclass
class Party:
    """One party's control plane. `address` is its party port; `admin` a client of its admin port."""

    publishing: Publishing
    pool: ModelPool
    reconciler: Reconciler
    store: ControlStore
    address: str
    admin: admin_pb2_grpc.AdminStub
    effects: Effects
    audit: AuditLog
    activity: Activity
    limiter: Limiter


@asynccontextmanager
async def running(
    party: str,
    registry: Path,
    store: ControlStore | None = None,
    peers: Mapping[str, str] | None = None,
    caller_party: str = "bank",
    may_load: tuple[str, ...] = ("*",),
    load_timeout_s: float = 10.0,
    apps: AppSettings | None = None,
    replica: str = "0",
    pool_max_bytes: int = 1 << 20,
    limit: RateLimit | None = None,
) -> AsyncIterator[Party]:
    """`peers`: party port by party; `caller_party`: who calls this one, may load `may_load` here, and
    has `limit`."""
    store = store or MemoryControlStore()
    pool = ModelPool(pool_max_bytes)
    reconciler = Reconciler(registry, party, pool, apps=AppShelf(apps or AppSettings()))
    links: dict[str, Channel] = {name: channel(Transport.NATIVE, target) for name, target in (peers or {}).items()}
    known = {name: Peer(name, link) for name, link in links.items()}
    # Looks at the apps on disk, as a node does before it serves.
    replicas = Replicas(party, replica, store)
    publishing = await asyncio.to_thread(Publishing, replicas, reconciler, pool, known, load_timeout_s)
    audit = AuditLog(registry)
    reconciler.make_room = Eviction(publishing, pool, audit).make_room
    publishing.restore()
    caller = PeerSettings(may_load=may_load, budget=1_000, limit=limit)
    folders = {"state_dir": str(registry), "registry": str(registry)}
    settings = Settings(party=party, plaintext_caller=caller_party, peers={caller_party: caller}, **folders)
    access = Access(settings)
    limiter = make_limiter(settings)
    publishing.watch(limiter.follow)
    admission = await asyncio.to_thread(make_admission, settings, SECRET, limiter.parties)
    effects = Effects(MemoryFigureStore(), SECRET)
    party_port, admin_port = server(Transport.NATIVE, ServerOptions()), server(Transport.GRPCIO, ServerOptions())
    federation.register(
        party_port,
        FederationNode(HostSide(pool, {"default": FEATURES}, admission), publishing, settings, audit, access.party),
        RequestFigures(),
    )
    book = PeerBook({**settings.peers, **{name: PeerSettings() for name in links}}, known, admission, publishing)
    cache = TieredCache(MemoryTier(1_000, 600.0), None)
    remote = RemotePartials(party, known, cache, SECRET, CacheSettings())
    prefetching = Prefetching(publishing.routes, pool, remote, settings.limits.max_batch_rows)
    activity = Activity(MemoryActivityStore(1_000), IdSeal(SECRET, party))
    warming = Warming(activity, prefetching)
    admin.register(admin_port, AdminNode(publishing, effects, book, audit, access, warming, limiter))
    address = f"127.0.0.1:{party_port.add_port('127.0.0.1:0')}"
    operator = channel(Transport.NATIVE, f"127.0.0.1:{admin_port.add_port('127.0.0.1:0')}")
    await asyncio.gather(party_port.start(), admin_port.start())
    try:
        stub = admin_pb2_grpc.AdminStub(operator.stub_channel)
        yield Party(publishing, pool, reconciler, store, address, stub, effects, audit, activity, limiter)
    finally:
        await asyncio.gather(*(link.close() for link in (operator, *links.values())))
        await asyncio.gather(party_port.stop(0), admin_port.stop(0))
        await replicas.stop()
        await reconciler.stop()
