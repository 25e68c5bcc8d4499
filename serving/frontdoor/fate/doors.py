"""All of FATE-Serving's protocols of one node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.access import Access
from serving.audit import AuditLog
from serving.frontdoor.fate import inference, model_service, operations
from serving.frontdoor.fate.inference import FateInference, FateModels
from serving.frontdoor.fate.model_service import FateAdmin
from serving.frontdoor.fate.models import FateModelStore
from serving.frontdoor.fate.rules import Flow
from serving.pipeline import Pipeline
from serving.pool import ModelPool
from serving.publishing import Publishing
from serving.readiness import Readiness
from serving.settings import Settings
from serving.telemetry.requests import RequestFigures
from serving.transport import Server

SERVICE_PORT = (inference.SERVICE,)
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


def register(service: Server, operator: Server, node: FateNode, figures: RequestFigures) -> None:
    """Serve callers on the service port, FATE-Flow and operators on the admin port."""
    settings, publishing = node.settings, node.publishing
    flow = Flow(lambda: publishing.state().flow_rules)
    models = FateModels(publishing, node.pool, settings.fate.user_id, flow)
    door = FateInference(node.pipeline, models, settings.limits.max_batch_rows)
    inference.register(service, door, figures, node.access)
    store = FateModelStore(settings, publishing, node.pool)
    admin = FateAdmin(store, publishing, settings, node.audit, node.access)
    model_service.register(operator, admin)
    operations.register(operator, admin, flow, node.readiness)
