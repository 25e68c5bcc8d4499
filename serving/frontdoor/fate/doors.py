"""All of FATE-Serving's protocols of one node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.routing import Route

from serving.access import Access
from serving.audit import AuditLog
from serving.cache.redis import RedisTier
from serving.frontdoor.fate import http, inference, model_service, operations, served, unary_call, unary_http
from serving.frontdoor.fate.cases import Cases
from serving.frontdoor.fate.inference import FateInference
from serving.frontdoor.fate.jobs import Jobs
from serving.frontdoor.fate.model_service import FateAdmin
from serving.frontdoor.fate.models import FateModelStore
from serving.frontdoor.fate.rules import Flow
from serving.frontdoor.fate.served import FateModels
from serving.frontdoor.fate.unary_call import PartnerSide, UnaryCall
from serving.host import HostSide
from serving.peers.occasions import Occasions
from serving.peers.signing import AccessKey, Claim, Signatures
from serving.pipeline import Pipeline
from serving.pool import ModelPool
from serving.publishing import Publishing
from serving.readiness import Readiness
from serving.servers import Servers
from serving.settings import Settings
from serving.telemetry.requests import RequestFigures
from serving.telemetry.worker_files import Telling

SERVICE_PORT = (served.SERVICE,)
PARTY_PORT = (unary_call.SERVICE,)
ADMIN_PORT = (model_service.SERVICE, operations.SERVICE)


@dataclass(frozen=True, slots=True)
class FateNode:
    """What the protocols ask of a node."""

    settings: Settings
    publishing: Publishing
    pool: ModelPool
    pipeline: Pipeline
    audit: AuditLog
    access: Access
    readiness: Callable[[], Readiness]
    host: HostSide
    keys: Mapping[str, AccessKey]
    shared: RedisTier | None
    telling: Telling
    cases: Cases
    occasions: Occasions


def register(servers: Servers, node: FateNode, figures: RequestFigures) -> tuple[list[Route], Jobs]:
    """Serve callers on the service port, other parties on the party port, FATE-Flow and operators on the admin port;
    returns what belongs on the HTTP port, and what is to be stopped after the last call."""
    settings, publishing = node.settings, node.publishing
    flow = Flow(node.pipeline.limiter.resources)
    flow.others = node.telling.tell("fate", flow.encoded)
    models = FateModels(publishing, node.pool, settings.fate.user_id, flow, settings.party, node.occasions)
    door = FateInference(node.pipeline, models, settings.limits.max_batch_rows)
    written = None if node.shared is None else node.shared.flush
    jobs = Jobs(door, node.cases, node.shared, settings.limits.peer_timeout_s, written=written)
    inference.register(servers.service, door, jobs.methods(), figures, node.access)
    store = FateModelStore(settings, publishing, node.pool)
    admin = FateAdmin(store, publishing, settings, node.audit, node.access)
    model_service.register(servers.operator, admin)
    operations.register(servers.operator, admin, flow, node.readiness)
    others = {name: key for name, key in node.keys.items() if key.party != settings.party}
    signatures = Signatures(others, settings.fate.request_expire_s, claim=_claim(settings, node.shared))
    side = PartnerSide(node.host, node.pool, settings, signatures, node.access.party, flow)
    partners = UnaryCall(side)
    unary_call.register(servers.party, partners, figures)
    over_http = FateInference(node.pipeline, models, settings.limits.max_batch_rows, served.HTTP)
    routes = http.routes(over_http, node.access, figures, settings.limits.max_request_bytes)
    if settings.fate.unary_over_http:
        routes.append(unary_http.route(partners, figures, settings.limits.max_request_bytes))
    return routes, jobs


def _claim(settings: Settings, shared: RedisTier | None) -> Claim | None:
    """None where this process is the only one that a packet can reach."""
    if settings.workers == 1 and not settings.control.url:
        return None
    return _unknown if shared is None else shared.claim


async def _unknown(key: bytes, ttl_s: float) -> None:
    """Nobody can tell."""
