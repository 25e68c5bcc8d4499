"""The composition root: builds every object of a serving process once, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from serving.audit import AuditLog
from serving.cache.counts import Counts
from serving.cache.keys import node_secret
from serving.cache.memory import MemoryTier
from serving.cache.redis import RedisTier
from serving.cache.result import ResultCache
from serving.cache.tiered import TieredCache
from serving.control import FileControlStore
from serving.features.catalog import make_source
from serving.features.source import FeatureSource
from serving.frontdoor import admin, federation, inference
from serving.frontdoor.http import HttpDoor
from serving.frontdoor.oip import http as oip_http
from serving.frontdoor.oip import service as oip
from serving.frontdoor.oip.control import Repository
from serving.frontdoor.oip.door import Door
from serving.frontdoor.oip.http import OipHttp
from serving.frontdoor.oip.models import Models
from serving.frontdoor.oip.service import OipNode
from serving.holds import HoldUpkeep
from serving.host import HostSide
from serving.http_port import HttpServer
from serving.node import Node, NodeState, Part, Port
from serving.peers.peer import Peer
from serving.peers.remote import RemotePartials
from serving.pipeline import Pipeline
from serving.pool import ModelPool
from serving.publishing import Publishing
from serving.readiness import Readiness, cache_problems, model_problems, report
from serving.readings import cache_metrics, lag_metrics, model_metrics
from serving.reconciler import Reconciler
from serving.security import caller
from serving.settings import Settings
from serving.telemetry.exposition import Exposition, request_metrics
from serving.telemetry.lag import LoopLag
from serving.telemetry.requests import RequestFigures
from serving.transport import Server, ServerOptions, channel, server


async def assemble(settings: Settings) -> Node:
    """A node that is ready to run. Raises what a wrong file raises, naming it."""
    state_dir = Path(settings.state_dir)
    store = await asyncio.to_thread(FileControlStore, state_dir)
    secret = await asyncio.to_thread(node_secret, settings.cache.secret_file, state_dir)

    pool = ModelPool(settings.limits.pool_max_bytes)
    reconciler = Reconciler(Path(settings.registry), settings.party, pool)
    peers = _peers(settings)
    publishing = Publishing(settings.party, store, reconciler, pool, peers, settings.limits.load_timeout_s)
    upkeep = HoldUpkeep(publishing.keep_holds)

    memory, shared = _remote_tiers(settings)
    cache = TieredCache(memory, shared)
    remote = RemotePartials(settings.party, peers, cache, secret, settings.cache)
    results = ResultCache(settings.cache.result_max_entries, settings.cache.result_ttl_s)
    pipeline = Pipeline(publishing.routes, pool, remote, results, settings.limits)
    sources = _sources(settings)
    host = HostSide(pool, sources)

    figures, lag, audit = RequestFigures(), LoopLag(), AuditLog(state_dir)
    service, party, operator = _servers(settings)
    inference.register(service, pipeline, figures)
    federation.register(party, host, publishing, settings, partial(caller, settings=settings), figures)
    admin.register(operator, publishing, audit)
    checks = (partial(model_problems, publishing), partial(cache_problems, shared))

    def readiness() -> Readiness:
        return report(node.state is NodeState.READY, node.state.value, checks)

    models = Models(publishing.routes, pool)
    repository = Repository(publishing, models, Path(settings.registry))
    foreign = OipNode(Door(pipeline, models), repository, readiness, settings.limits.max_batch_rows, audit)
    oip.register(service, foreign, figures, oip.nobody)
    oip.register(operator, foreign, figures, oip.anybody)
    readings = (
        partial(request_metrics, figures),
        partial(lag_metrics, lag),
        partial(cache_metrics, _levels(results, memory, shared)),
        partial(model_metrics, publishing, pool),
    )
    max_bytes = settings.limits.max_request_bytes
    protocols = OipHttp(foreign, figures, max_bytes, oip_http.nobody).routes()
    http = HttpDoor(pipeline, Exposition(readings), readiness, figures, max_bytes, protocols)

    parts = (
        Part(lag.start, lag.stop),
        Part(stop=cache.close),
        *(Part(stop=peer.close) for peer in peers.values()),
        *(Part(source.open, source.close) for source in sources.values()),
        Part(stop=reconciler.stop),
        Part(stop=upkeep.stop),
    )

    async def ready() -> None:
        publishing.restore()
        await reconciler.all_settled()
        upkeep.start()

    return (node := Node(settings, _ports(settings, (service, party, operator), http), parts, ready))


def _servers(settings: Settings) -> tuple[Server, Server, Server]:
    """For the service, party and admin ports."""
    options = ServerOptions(max_receive_bytes=settings.limits.max_request_bytes)
    one, two, three = (server(settings.transport, options) for _ in range(3))
    return one, two, three


def _ports(settings: Settings, servers: tuple[Server, Server, Server], http: HttpDoor) -> tuple[Port, ...]:
    service, party, operator = servers
    return (
        Port("service", service, settings.ports.service, ("tessera.v1.Inference", oip.SERVICE)),
        Port("party", party, settings.ports.party, ("tessera.v1.Federation",)),
        Port("admin", operator, settings.ports.admin, ("tessera.v1.Admin", oip.SERVICE)),
        Port("http", HttpServer(http.application()), settings.ports.http),
    )


def _peers(settings: Settings) -> dict[str, Peer]:
    return {
        party: Peer(party, channel(settings.transport, peer.address))
        for party, peer in settings.peers.items()
        if peer.address
    }


def _remote_tiers(settings: Settings) -> tuple[MemoryTier, RedisTier | None]:
    cache = settings.cache
    memory = MemoryTier(cache.remote_max_entries, cache.remote_ttl_s)
    return memory, RedisTier(cache.url, cache.shared_timeout_s) if cache.url else None


def _levels(results: ResultCache, memory: MemoryTier, shared: RedisTier | None) -> dict[str, Counts]:
    levels = {"l1": results.counts, "l2": memory.counts}
    return levels if shared is None else {**levels, "l3": shared.counts}


def _sources(settings: Settings) -> Mapping[str, FeatureSource]:
    return {model: make_source(source) for model, source in settings.features.items()}
