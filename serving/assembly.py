"""The composition root: builds every object of a serving process once, and nothing else does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from starlette.routing import Route

from apps.remote import RemoteApps
from loaders.content import ContentStore
from loaders.remote import RemoteRegistry
from loaders.remote_folder import RemoteFolder
from serving.access import Access
from serving.activity import Activity, IdSeal
from serving.activity_store import MemoryActivityStore, RedisActivityStore
from serving.admission import make_admission
from serving.app_shelf import AppShelf
from serving.audit import AuditLog
from serving.cache.keys import node_secret
from serving.cache.memory import MemoryTier, NoMemory
from serving.cache.redis import RedisTier
from serving.cache.result import NoResults, ResultCache
from serving.cache.tiered import TieredCache
from serving.control import ControlStore, FileControlStore
from serving.eviction import Eviction
from serving.features.catalog import make_source
from serving.features.source import FeatureSource
from serving.figures.effects import Effects
from serving.figures.sqlite import SqliteFigureStore
from serving.figures.store import FigureStore
from serving.frontdoor import admin, federation, inference
from serving.frontdoor.admin import AdminNode
from serving.frontdoor.console.door import ConsoleDoor
from serving.frontdoor.fate import doors as fate_doors
from serving.frontdoor.fate.cases import Cases
from serving.frontdoor.fate.doors import FateNode
from serving.frontdoor.fate.jobs import Jobs
from serving.frontdoor.federation import FederationNode
from serving.frontdoor.http import HttpDoor
from serving.frontdoor.oip import service as oip
from serving.frontdoor.oip.control import Repository
from serving.frontdoor.oip.door import Door
from serving.frontdoor.oip.figures import encoded
from serving.frontdoor.oip.http import OipHttp
from serving.frontdoor.oip.log_settings import LogSettings
from serving.frontdoor.oip.models import Models
from serving.frontdoor.oip.service import OipNode
from serving.frontdoor.oip.trace_settings import TraceChoices
from serving.holds import HoldUpkeep
from serving.limits import make_limiter
from serving.node import Node, NodeState, Part
from serving.peer_book import PeerBook
from serving.peers.asked import Asked
from serving.peers.batching import Batcher
from serving.peers.breaker import Breaking
from serving.peers.fallback import Fallbacks
from serving.peers.fate import FatePeer, Sender
from serving.peers.hedging import Hedging
from serving.peers.metrics import peer_metrics
from serving.peers.occasions import Occasions
from serving.peers.peer import Peer
from serving.peers.remote import RemotePartials
from serving.peers.signing import AccessKey, access_keys
from serving.pipeline import Answers
from serving.pool import ModelPool
from serving.prefetch import Prefetching
from serving.publishing import Publishing
from serving.readiness import Readiness, cache_problems, publishing_problems, report
from serving.readings import (
    budget_metrics,
    cache_metrics,
    figure_metrics,
    hold_metrics,
    lag_metrics,
    model_metrics,
    pipeline_metrics,
    replica_metrics,
    row_metrics,
    size_metrics,
    warmup_metrics,
)
from serving.reconciler import Reconciler
from serving.replicas import Replicas
from serving.request_log import RequestLog
from serving.security import own_credentials
from serving.servers import Servers, make_servers, ports_of
from serving.settings import LogLevel, PeerProtocol, PeerSettings, Role, Settings
from serving.shared_counts import SharedCounts
from serving.telemetry.exposition import Exposition, Reading, request_metrics
from serving.telemetry.lag import LoopLag
from serving.telemetry.logs import follow_level
from serving.telemetry.requests import RequestFigures
from serving.telemetry.shared import SharedExposition
from serving.telemetry.spans import Watch
from serving.telemetry.worker_files import Teller, Telling
from serving.threads import ModelThreads
from serving.traced.tracing import Untraced, make_tracing
from serving.transport import Channel, ChannelOptions, channel
from serving.undeclared import UndeclaredLog
from serving.unmanaged import UnmanagedHosts
from serving.warming import Warming
from serving.warmup_schedule import WarmupSchedule

RECONNECT_S = 0.5
"""The longest pause between attempts to reach a party: it is asked again soon after it returns."""


async def assemble(settings: Settings, counts: SharedCounts | None = None) -> Node:
    """A node that is ready to run. `counts`: with its other workers. Raises what a wrong file raises, naming it."""
    replicas = await _replicas(settings)
    secret = await asyncio.to_thread(node_secret, settings.cache.secret_file, Path(settings.state_dir))
    pool = ModelPool(settings.limits.pool_max_bytes, _threads(settings))
    audit, limits = AuditLog(Path(settings.state_dir)), settings.limits
    keys, tracing = await asyncio.to_thread(access_keys, settings.fate), await asyncio.to_thread(make_tracing, settings)
    occasions = _occasions(settings)
    peers = await _peers(settings, pool, keys, tracing, occasions)
    publishing, reconciler = await asyncio.to_thread(_publishing, settings, replicas, pool, peers, audit)
    upkeep, limiter = HoldUpkeep(publishing.keep_holds), make_limiter(settings, counts)
    publishing.watch(limiter.follow)
    replicas.watch_nodes(limiter.share)
    memory, shared, cache = _remote_tiers(settings)
    breaking, batchers = await _guarded(settings, peers, tracing)
    remote = RemotePartials(settings.party, batchers, cache, secret, settings.cache)
    warming = _warming(settings, secret, Prefetching(publishing.routes, pool, remote, limits.max_batch_rows))
    results, effects, fallbacks = await _answers(settings, secret, warming.mark)
    answers = Answers(results, effects, warming.seen, warming.seen_again, fallbacks)
    pipeline = tracing.pipeline(_request_log(settings, secret), publishing.routes, pool, remote, answers, limiter)
    sources, admission = _sources(settings), await asyncio.to_thread(make_admission, settings, secret, limiter.parties)
    host = tracing.host_side(pool, sources, admission)

    figures, lag, access = RequestFigures(), LoopLag(), Access(settings)
    servers = make_servers(settings, tracing)
    inference.register(servers.service, pipeline, figures, access)
    federation.register(servers.party, FederationNode(host, publishing, settings, audit, access.party), figures)
    book = PeerBook(settings.peers, peers, admission, publishing)
    admin.register(servers.operator, AdminNode(publishing, effects, book, audit, access, warming, limiter))
    schedule = WarmupSchedule(settings.warmup, replicas, warming, lambda: publishing.state().services)
    checks = (partial(publishing_problems, publishing), partial(cache_problems, shared), replicas.problems)

    def readiness() -> Readiness:
        return report(node.state is NodeState.READY, node.state.value, (*checks, schedule.problems), replicas.heard())

    telling, cases = _telling(settings, replicas), _cases(secret, replicas)
    hosted = (host, keys, shared)
    fate = FateNode(settings, publishing, pool, pipeline, audit, access, readiness, *hosted, telling, cases, occasions)
    protocols, jobs = _foreign_protocols(fate, servers, figures, tracing.watching(oip.MODEL_STREAM_INFER))
    readings: tuple[Reading, ...] = (
        *(partial(request_metrics, figures), partial(lag_metrics, lag), partial(figure_metrics, effects)),
        *_control_readings(publishing, pool, replicas),
        *(*_cache_readings(results, memory, shared), *servers.readings(), *tracing.readings()),
        *(partial(budget_metrics, admission), partial(pipeline_metrics, pipeline)),
        *(partial(peer_metrics, batchers, breaking), partial(warmup_metrics, schedule), partial(row_metrics, effects)),
    )
    metrics = _exposition(telling, Exposition(readings))
    protocols += ConsoleDoor(settings.party, publishing, pool, effects, access, figures).routes()
    http = HttpDoor(pipeline, metrics, readiness, figures, limits.max_request_bytes, access, protocols)
    parts = (
        *(Part(file.start, file.stop) for file in telling.files),
        *tracing.parts(),
        *(Part(one.start, one.stop) for one in (lag, effects, warming.activity)),
        *(Part(stop=stop) for stop in (cache.close, *(batcher.close for batcher in batchers.values()))),
        *(Part(source.open, source.close) for source in sources.values()),
        *(Part(stop=one.stop) for one in (pipeline, reconciler, replicas, upkeep, schedule, jobs)),
    )

    undeclared = UndeclaredLog(fallbacks, pool)
    ready = partial(_ready, publishing, tracing, settings.log_level, undeclared, (upkeep, schedule))
    ports = await asyncio.to_thread(ports_of, settings, servers, _SERVICES, tracing.http(http.application()))
    return (node := Node(settings, ports, parts, ready))


async def _ready(
    publishing: Publishing,
    tracing: Untraced,
    level: LogLevel,
    undeclared: UndeclaredLog,
    upkeep: tuple[HoldUpkeep, WarmupSchedule],
) -> None:
    publishing.restore()
    publishing.watch(follow_level(level))
    tracing.follow(publishing)
    await publishing.caught_up()
    publishing.watch(undeclared.look)
    for one in upkeep:
        one.start()


def _request_log(settings: Settings, secret: bytes) -> RequestLog | None:
    share = settings.request_log_share
    return RequestLog(share, secret, features=settings.request_log_features) if share else None


def _threads(settings: Settings) -> ModelThreads:
    return ModelThreads(settings.limits.model_threads, settings.limits.model_queue)


def _publishing(
    settings: Settings, replicas: Replicas, pool: ModelPool, peers: Mapping[str, Peer], audit: AuditLog
) -> tuple[Publishing, Reconciler]:
    reconciler = Reconciler(settings.registry_folder, settings.party, pool, apps=AppShelf(settings.apps))
    content = ContentStore(Path(settings.state_dir) / "artifacts", settings.artifacts.max_bytes)
    if "://" in (url := settings.registry):
        reconciler.remote = RemoteRegistry(RemoteFolder(url), settings.registry_folder, content, reconciler.in_use)
    if "://" in (url := settings.apps.root):
        shelf = reconciler.apps
        shelf.remote = RemoteApps(RemoteFolder(url), settings.apps_folder, content, shelf.in_use)
    unmanaged, timeout_s = _unmanaged(settings, peers), settings.limits.load_timeout_s
    publishing = Publishing(replicas, reconciler, pool, peers, timeout_s, unmanaged)
    reconciler.make_room = Eviction(publishing, pool, audit).make_room
    return publishing, reconciler


async def _guarded(
    settings: Settings, peers: Mapping[str, Peer], tracing: Untraced
) -> tuple[dict[str, Breaking], dict[str, Batcher]]:
    """What stands in front of each party, the nearest first."""
    hedging = {party: await _hedging(settings, party, peer, tracing) for party, peer in peers.items()}
    breaking = {party: Breaking(one, settings.breaker) for party, one in hedging.items()}
    return breaking, {party: tracing.batcher(party, one, settings.batching) for party, one in breaking.items()}


async def _hedging(settings: Settings, party: str, peer: Peer, tracing: Untraced) -> Asked:
    where = settings.peers[party]
    if not where.hedge_address:
        return peer
    second = Peer(party, await _peer_channel(settings, party, where.hedge_address, tracing))
    return Hedging(peer, second, where.hedge_after_s)


async def _replicas(settings: Settings) -> Replicas:
    store = await asyncio.to_thread(_control_store, settings)
    name = settings.replica or socket.gethostname()
    node = name.rpartition("/")[0] if settings.workers > 1 else name
    return Replicas(settings.party, name, store, node=node)


async def _answers(
    settings: Settings, secret: bytes, mark: Callable[[str], bytes]
) -> tuple[ResultCache, Effects, Fallbacks]:
    cache = settings.cache
    results: ResultCache = NoResults()
    if cache.result_ttl_s:
        results = ResultCache(cache.result_max_entries, cache.result_ttl_s, mark=mark)
    effects = Effects(await asyncio.to_thread(_figure_store, settings), secret)
    return results, effects, Fallbacks(settings.fallbacks)


def _cases(secret: bytes, replicas: Replicas) -> Cases:
    return Cases(secret, replicas.party, replicas.generation, lambda: (one.generation for one in replicas.heard()))


def _foreign_protocols(
    node: FateNode, servers: Servers, figures: RequestFigures, watch: Watch
) -> tuple[list[Route], Jobs]:
    """Registers them; returns what belongs on the HTTP port, and what callers have begun."""
    limits, access = node.settings.limits, node.access
    models = Models(node.publishing.routes, node.pool)
    repository = Repository(node.publishing, models, node.settings.registry_folder, node.settings.party)
    door = Door(node.pipeline, models)
    log = LogSettings(node.publishing, node.settings.log_level)
    others = node.telling.tell("oip", partial(encoded, door.figures))
    traces = TraceChoices(node.publishing, node.settings.traces)
    rows, audit = limits.max_batch_rows, node.audit
    foreign = OipNode(door, repository, node.readiness, rows, audit, access, log, traces, others, watch)
    oip.register(servers.service, foreign, figures, access.operator)
    if not servers.are_one:
        oip.register(servers.operator, foreign, figures, partial(access.admin, role=Role.OPERATOR))
    fate, jobs = fate_doors.register(servers, node, figures)
    return [*OipHttp(foreign, figures, limits.max_request_bytes).routes(), *fate], jobs


def _telling(settings: Settings, replicas: Replicas) -> Telling:
    if settings.workers == 1:
        return Telling(None)
    return Telling(Teller(Path(settings.state_dir) / "metrics", replicas.name, replicas.generation))


def _exposition(telling: Telling, own: Exposition) -> Callable[[], Awaitable[bytes]]:
    """What a scrape shows: of one worker its own metrics, of several those of all."""
    if telling.teller is not None:
        return SharedExposition(own, telling.teller, telling.tell("prom", own.text)).text

    async def alone() -> bytes:
        return own.text()

    return alone


def _control_store(settings: Settings) -> ControlStore:
    local = FileControlStore(Path(settings.state_dir))
    if not settings.control.url:
        return local
    from serving.control_redis import RedisControlStore  # noqa: PLC0415 - only replicas on several machines need it

    return RedisControlStore(settings.control.url, settings.party, local)


def _figure_store(settings: Settings) -> FigureStore:
    if not settings.control.url:
        return SqliteFigureStore(Path(settings.state_dir))
    from serving.figures.redis import RedisFigureStore  # noqa: PLC0415 - as above

    return RedisFigureStore(settings.control.url, settings.party)


_SERVICES = {
    "service": ("tessera.v1.Inference", oip.SERVICE, *fate_doors.SERVICE_PORT),
    "party": ("tessera.v1.Federation", *fate_doors.PARTY_PORT),
    "admin": ("tessera.v1.Admin", oip.SERVICE, *fate_doors.ADMIN_PORT),
}


async def _peer_channel(settings: Settings, party: str, address: str, tracing: Untraced) -> Channel:
    """A peer's certificate must name the party."""
    credentials = await asyncio.to_thread(own_credentials, settings, "party", party)
    options = ChannelOptions(credentials=credentials, backoff_max_s=RECONNECT_S)
    link = channel(settings.transport, address, options)
    return tracing.channel(link) if settings.peers[party].traces else link


def _occasions(settings: Settings) -> Occasions:
    return Occasions(asked_for=any(peer.protocol is PeerProtocol.FATE for peer in settings.peers.values()))


async def _peers(
    settings: Settings, pool: ModelPool, keys: Mapping[str, AccessKey], tracing: Untraced, occasions: Occasions
) -> dict[str, Peer]:
    def peer_of(party: str, peer: PeerSettings, link: Channel) -> Peer:
        if peer.protocol is PeerProtocol.TESSERA:
            return Peer(party, link)
        secret = keys[peer.app_key].secret if peer.app_key else b""
        user_id = settings.fate.user_id or "id"
        return FatePeer(party, link, pool, Sender(settings.party, user_id, peer.app_key, secret, occasions))

    return {
        party: peer_of(party, peer, await _peer_channel(settings, party, peer.address, tracing))
        for party, peer in settings.peers.items()
        if peer.address
    }


def _unmanaged(settings: Settings, peers: Mapping[str, Peer]) -> UnmanagedHosts:
    fate = {party: peer for party, peer in peers.items() if isinstance(peer, FatePeer)}
    return UnmanagedHosts(fate, {party: settings.peers[party].probe_user for party in fate})


def _remote_tiers(settings: Settings) -> tuple[MemoryTier, RedisTier | None, TieredCache]:
    cache = settings.cache
    memory: MemoryTier = NoMemory()
    if cache.remote_ttl_s:
        memory = MemoryTier(cache.remote_max_entries, cache.remote_ttl_s, stale_s=cache.stale_s)
    shared = RedisTier(cache.url, cache.shared_timeout_s) if cache.url else None
    return memory, shared, TieredCache(memory, shared)


def _warming(settings: Settings, secret: bytes, prefetching: Prefetching) -> Warming:
    cache, warmup = settings.cache, settings.warmup
    shared = cache.url and RedisActivityStore(cache.url, settings.party, cache.key_id, warmup.max_users)
    store = shared or MemoryActivityStore(warmup.max_users)
    return Warming(Activity(store, IdSeal(secret, settings.party)), prefetching, warmup.count)


def _control_readings(publishing: Publishing, pool: ModelPool, replicas: Replicas) -> tuple[Reading, ...]:
    holds = partial(hold_metrics, publishing)
    return partial(model_metrics, publishing, pool), partial(replica_metrics, replicas), holds


def _cache_readings(results: ResultCache, memory: MemoryTier, shared: RedisTier | None) -> tuple[Reading, ...]:
    levels = {"l1": results.counts, "l2": memory.counts}
    if shared is not None:
        levels["l3"] = shared.counts
    return partial(cache_metrics, levels), partial(size_metrics, {"l1": results, "l2": memory})


def _sources(settings: Settings) -> Mapping[str, FeatureSource]:
    return {model: make_source(source) for model, source in settings.features.items()}
