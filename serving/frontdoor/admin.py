"""tessera.v1.Admin on the admin port: decode, call, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from apps.catalog import names
from serving.access import Access
from serving.app_shelf import AppId
from serving.audit import AuditLog
from serving.bindings import VariantWeight, wanted_apps
from serving.control import Service, Variant
from serving.errors import InvalidRequestError
from serving.figures.effects import Effects
from serving.frontdoor.admin_messages import (
    app_list,
    figures_message,
    limit_in,
    limit_kind,
    limit_message,
    model_list,
    peer_message,
)
from serving.frontdoor.answer import answering_method
from serving.frontdoor.federation import replica_message
from serving.limit_kind import LimitKind
from serving.limits import Limiter
from serving.peer_book import PeerBook
from serving.pool import ModelId
from serving.prefetch import PrefetchOutcome
from serving.publishing import Publishing, Terms
from serving.settings import LogLevel, Role
from serving.transport import Server, call_of
from serving.unmanaged import Acceptance
from serving.warming import Warming
from tessera.v1 import admin_pb2 as wire
from tessera.v1 import admin_pb2_grpc

_ROLES = {
    "ListModels": Role.VIEWER,
    "ListServices": Role.VIEWER,
    "ListPeers": Role.VIEWER,
    "ListApps": Role.VIEWER,
    "ListLimits": Role.VIEWER,
    "Figures": Role.VIEWER,
    "Feedback": Role.CALLER,
}
"""The other methods are for operators."""


@dataclass(frozen=True, slots=True)
class AdminNode:
    """What operators look at and change."""

    publishing: Publishing
    effects: Effects
    peers: PeerBook
    audit: AuditLog
    access: Access
    warming: Warming
    limiter: Limiter


def register(server: Server, node: AdminNode) -> None:
    """Serve the protocol on `server`."""
    servicer = AdminServicer(node)
    for method in wire.DESCRIPTOR.services_by_name["Admin"].methods:
        role = _ROLES.get(method.name, Role.OPERATOR)
        setattr(servicer, method.name, _guarded(getattr(servicer, method.name), node.access, role))
    admin_pb2_grpc.add_AdminServicer_to_server(servicer, server.registry)


def _guarded(method: Callable[..., Awaitable[Any]], access: Access, role: Role) -> Callable[..., Awaitable[Any]]:
    async def check(request: object, context: object) -> Any:
        access.admin(call_of(context), role)
        return await method(request, context)

    return answering_method(check)


class AdminServicer(admin_pb2_grpc.AdminServicer):
    """Every change is in the audit log."""

    def __init__(self, node: AdminNode) -> None:
        self._publishing = node.publishing
        self._effects = node.effects
        self._peers = node.peers
        self._audit = node.audit
        self._access = node.access
        self._warming = node.warming
        self._limiter = node.limiter

    @answering_method
    async def PublishLoad(self, request: wire.PublishLoadRequest, context: object) -> wire.PublishLoadReply:
        model = _model(request.model, request.version)
        async with self._changing(context, "PublishLoad", str(model), self._model_state):
            outcomes, digest = await self._publishing.load(model, call_of(context).time_remaining())
        return wire.PublishLoadReply(
            replicas=[replica_message(outcome) for outcome in outcomes], binding_digest=bytes.fromhex(digest)
        )

    @answering_method
    async def PublishOnline(self, request: wire.PublishOnlineRequest, context: object) -> wire.PublishOnlineReply:
        weights, shadows = _wanted(request.variants), _wanted(request.shadows)
        async with self._changing(context, "PublishOnline", request.service, self._service_state):
            bound = await self._publishing.online(
                request.service,
                request.revision,
                weights,
                request.app,
                request.app_parameters,
                Terms(shadows, Acceptance(frozenset(request.accept_unmanaged), request.probe_user_id)),
            )
        return _binding(request.service, bound)

    @answering_method
    async def Rollback(self, request: wire.RollbackRequest, context: object) -> wire.PublishOnlineReply:
        async with self._changing(context, "Rollback", request.service, self._service_state):
            bound = await self._publishing.rollback(request.service, request.revision)
        return _binding(request.service, bound)

    @answering_method
    async def Unload(self, request: wire.UnloadRequest, context: object) -> wire.UnloadReply:
        model = _model(request.model, request.version)
        what = "Unload by force" if request.force else "Unload"
        async with self._changing(context, what, str(model), self._model_state):
            await self._publishing.unload(model, request.force)
        return wire.UnloadReply()

    @answering_method
    async def SetDefaultService(
        self, request: wire.SetDefaultServiceRequest, context: object
    ) -> wire.SetDefaultServiceReply:
        async with self._changing(context, "SetDefaultService", request.service, self._default_service):
            await self._publishing.set_default_service(request.service)
        return wire.SetDefaultServiceReply()

    @answering_method
    async def RemoveService(self, request: wire.RemoveServiceRequest, context: object) -> wire.RemoveServiceReply:
        async with self._changing(context, "RemoveService", request.service, self._service_state):
            removed = await self._publishing.remove(request.service, request.revision)
        return wire.RemoveServiceReply(removed=removed)

    @answering_method
    async def ListModels(self, request: wire.ListModelsRequest, context: object) -> wire.ListModelsReply:
        return model_list(self._publishing.models(), self._publishing.heard())

    @answering_method
    async def ListServices(self, request: wire.ListServicesRequest, context: object) -> wire.ListServicesReply:
        state = self._publishing.state()
        return wire.ListServicesReply(
            services=[
                _service(name, service, is_default=name == state.default_service)
                for name, service in sorted(state.services.items())
            ]
        )

    @answering_method
    async def Feedback(self, request: wire.FeedbackRequest, context: object) -> wire.FeedbackReply:
        outcomes = [(outcome.attribution, outcome.label) for outcome in request.outcomes]
        taken = await self._effects.feedback(outcomes)
        return wire.FeedbackReply(accepted=taken.accepted, known=taken.known, refused=taken.refused)

    @answering_method
    async def Figures(self, request: wire.FiguresRequest, context: object) -> wire.FiguresReply:
        found = await self._effects.figures(request.service or None)
        return wire.FiguresReply(variants=[figures_message(one) for one in found])

    @answering_method
    async def Prefetch(self, request: wire.PrefetchRequest, context: object) -> wire.PrefetchReply:
        address = (request.service, request.model, request.version)
        remaining_s = call_of(context).time_remaining()
        done = await self._warming.prefetching.prefetch(address, request.user_ids, remaining_s, request.dry_run)
        return wire.PrefetchReply(
            fetched=done.count(PrefetchOutcome.FETCHED),
            cached=done.count(PrefetchOutcome.CACHED),
            outcomes=bytes(done.outcomes),
            reason=done.reason,
        )

    @answering_method
    async def Activity(self, request: wire.ActivityRequest, context: object) -> wire.ActivityReply:
        days = (request.first_day, request.last_day)
        found = await self._warming.activity.top(request.service, days, request.offset, request.limit)
        return wire.ActivityReply(
            user_ids=found.user_ids,
            counts=found.counts,
            total_users=found.total_users,
            total_count=found.total_count,
        )

    @answering_method
    async def ListPeers(self, request: wire.ListPeersRequest, context: object) -> wire.ListPeersReply:
        return wire.ListPeersReply(peers=[peer_message(view) for view in await self._peers.look()])

    @answering_method
    async def SetLogLevel(self, request: wire.SetLogLevelRequest, context: object) -> wire.SetLogLevelReply:
        level = _level(request.level)
        async with self._changing(context, "SetLogLevel", "log_level", self._log_level):
            await self._publishing.set_log_level(level)
        return wire.SetLogLevelReply()

    @answering_method
    async def SetLimit(self, request: wire.SetLimitRequest, context: object) -> wire.SetLimitReply:
        kind, limits = limit_kind(request.kind), self._publishing.limits
        async with self._changing_limit(context, "SetLimit", kind, request.name):
            await limits.set(kind, request.name, limit_in(request.limit))
        return wire.SetLimitReply()

    @answering_method
    async def ClearLimit(self, request: wire.ClearLimitRequest, context: object) -> wire.ClearLimitReply:
        kind, limits = limit_kind(request.kind), self._publishing.limits
        async with self._changing_limit(context, "ClearLimit", kind, request.name):
            cleared = await limits.clear(kind, request.name)
        found = [one for one in self._limiter.statuses() if (one.kind, one.name) == (kind, request.name)]
        return wire.ClearLimitReply(cleared=cleared, status=limit_message(found[0]) if found else None)

    @answering_method
    async def ListLimits(self, request: wire.ListLimitsRequest, context: object) -> wire.ListLimitsReply:
        return wire.ListLimitsReply(limits=map(limit_message, self._limiter.statuses()))

    @answering_method
    async def LoadApp(self, request: wire.LoadAppRequest, context: object) -> wire.LoadAppReply:
        app = _app(request.name, request.version)
        async with self._changing(context, "LoadApp", str(app), self._app_state):
            outcomes, digest = await self._publishing.apps.load(app, call_of(context).time_remaining())
        return wire.LoadAppReply(
            replicas=[replica_message(outcome) for outcome in outcomes], digest=bytes.fromhex(digest)
        )

    @answering_method
    async def UnloadApp(self, request: wire.UnloadAppRequest, context: object) -> wire.UnloadAppReply:
        app = _app(request.name, request.version)
        async with self._changing(context, "UnloadApp", str(app), self._app_state):
            await self._publishing.apps.unload(app)
        return wire.UnloadAppReply()

    @answering_method
    async def ListApps(self, request: wire.ListAppsRequest, context: object) -> wire.ListAppsReply:
        return app_list(await asyncio.to_thread(names), self._publishing.apps.statuses())

    def _changing(
        self, context: object, what: str, subject: str, state: Callable[[str], object]
    ) -> AbstractAsyncContextManager[None]:
        return self._audit.change(self._access.who(call_of(context)), what, subject, partial(state, subject))

    def _changing_limit(
        self, context: object, what: str, kind: LimitKind, name: str
    ) -> AbstractAsyncContextManager[None]:
        def state(_: str) -> object:
            return self._publishing.limits.wanted(kind, name)

        return self._changing(context, what, f"{kind.value} {name}", state)

    def _service_state(self, name: str) -> object:
        return self._publishing.state().services.get(name)

    def _model_state(self, model: str) -> object:
        return next((one.life.state.value for one in self._publishing.models() if str(one.life.model) == model), "NEW")

    def _app_state(self, app: str) -> object:
        """The digest that is wanted."""
        wanted = {str(id_): one.digest for id_, one in wanted_apps(self._publishing.state()).items()}
        return wanted.get(app)

    def _log_level(self, _: str) -> object:
        return self._publishing.state().log_level

    def _default_service(self, _: str) -> object:
        return self._publishing.state().default_service


def _model(model: str, version: str) -> ModelId:
    if not model or not version:
        raise InvalidRequestError("name a model and a version")
    return ModelId(model, version)


def _app(name: str, version: str) -> AppId:
    if not name or not version:
        raise InvalidRequestError("name an app and a version")
    return AppId(name, version)


def _level(name: str) -> LogLevel | None:
    try:
        return LogLevel(name) if name else None
    except ValueError:
        known = ", ".join(level.value for level in LogLevel)
        raise InvalidRequestError(f"unknown log level {name!r}; known: {known}") from None


def _wanted(items: Iterable[wire.VariantWeight]) -> list[VariantWeight]:
    return [VariantWeight(_model(item.model, item.version), item.weight) for item in items]


def _weights(variants: tuple[Variant, ...]) -> list[wire.VariantWeight]:
    return [wire.VariantWeight(model=item.model, version=item.version, weight=item.weight) for item in variants]


def _binding(name: str, service: Service) -> wire.PublishOnlineReply:
    return wire.PublishOnlineReply(
        service=name,
        revision=service.revision,
        variants=_weights(service.current.variants),
        shadows=_weights(service.current.shadows),
        unmanaged=service.current.unmanaged,
    )


def _service(name: str, service: Service, is_default: bool) -> wire.ServiceStatus:
    return wire.ServiceStatus(
        service=name,
        revision=service.revision,
        variants=_weights(service.current.variants),
        previous=_weights(service.previous.variants) if service.previous else [],
        app=service.current.app,
        app_parameters=service.current.app_parameters,
        is_default=is_default,
        shadows=_weights(service.current.shadows),
        unmanaged=service.current.unmanaged,
    )
