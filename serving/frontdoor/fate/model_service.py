"""`ModelService` over gRPC. Errors are codes in the replies; only those who may not call get a status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import DecodeError

from loaders.fate.describing import cache_file, components_of
from loaders.fate.export import ExportError, parts_of_json
from loaders.fate.names import FateName, FateNameError, name_in
from serving.access import Access
from serving.audit import AuditLog
from serving.errors import ConflictError, InvalidRequestError, NotAllowedError
from serving.frontdoor.answer import answering_method
from serving.frontdoor.fate.codes import FateCode, failure
from serving.frontdoor.fate.descriptions import described, named, publication_in, resource_of
from serving.frontdoor.fate.models import FateModelStore, name_of
from serving.limit_kind import LimitKind
from serving.pool import ModelHandle, ModelId
from serving.publishing import Publishing
from serving.settings import Role, Settings
from serving.transport import ChannelOptions, RpcError, Server, call_of, channel
from tessera.compat import fate_model_service_pb2 as wire
from tessera.compat import fate_model_service_pb2_grpc

SERVICE = "com.webank.ai.fate.api.mlmodel.manager.ModelService"
TRANSFER = f"/{SERVICE}/modelTransfer"
ALL, WITHIN, EXACTLY = 0, 1, 2
"""Kinds of queryModel."""
SUCCESS = "success"

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class FateAdmin:
    """What the admin side of FATE's protocols asks of a node."""

    store: FateModelStore
    publishing: Publishing
    settings: Settings
    audit: AuditLog
    access: Access


def register(server: Server, admin: FateAdmin) -> None:
    """Serve the protocol on `server`."""
    servicer = ModelServicer(admin)
    fate_model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server.registry)


class ModelServicer(fate_model_service_pb2_grpc.ModelServiceServicer):
    """Every change is in the audit log."""

    def __init__(self, admin: FateAdmin) -> None:
        self._admin = admin
        self._store = admin.store

    @answering_method
    async def publishLoad(self, request: wire.PublishRequest, context: object) -> wire.PublishResponse:
        subject = f"{request.local.role} {request.local.partyId}"
        change = self._changing(context, "publishLoad", subject, name=lambda: self._name_of(request))
        return await _coded(wire.PublishResponse, change, FateCode.LOAD, lambda: self._store.load(request))

    @answering_method
    async def publishBind(self, request: wire.PublishRequest, context: object) -> wire.PublishResponse:
        services, name = [request.serviceId], partial(self._name_of, request)
        change = self._changing(context, "publishBind", request.serviceId, services, name)
        return await _coded(wire.PublishResponse, change, FateCode.BIND, lambda: self._store.bind(request))

    @answering_method
    async def publishOnline(self, request: wire.PublishRequest, context: object) -> wire.PublishResponse:
        bind = self._store.bind if request.serviceId else self._store.use
        subject, services = request.serviceId or "the party's default", [request.serviceId] if request.serviceId else []
        change = self._changing(context, "publishOnline", subject, services, lambda: self._name_of(request))
        return await _coded(wire.PublishResponse, change, FateCode.BIND, lambda: bind(request))

    @answering_method
    async def unload(self, request: wire.UnloadRequest, context: object) -> wire.UnloadResponse:
        subject = f"{request.namespace} {request.tableName}"
        change = self._changing(context, "unload", subject, name=lambda: _name(request))
        return await _coded(wire.UnloadResponse, change, None, lambda: self._store.unload(_name(request)))

    @answering_method
    async def unbind(self, request: wire.UnbindRequest, context: object) -> wire.UnbindResponse:
        services = list(request.serviceIds)
        change = self._changing(context, "unbind", " ".join(services), services)
        return await _coded(
            wire.UnbindResponse, change, FateCode.BIND, lambda: self._store.unbind(services, _name(request))
        )

    @answering_method
    async def queryModel(self, request: wire.QueryModelRequest, context: object) -> wire.QueryModelResponse:
        self._admin.access.admin(call_of(context), Role.VIEWER)
        if min(request.beginIndex, request.endIndex) < 0 or request.queryType not in {ALL, WITHIN, EXACTLY}:
            text = "beginIndex and endIndex are not negative, queryType is 0, 1 or 2"
            return wire.QueryModelResponse(retcode=FateCode.BAD_PARAMETER, message=text)
        found = [handle for handle in self._store.loaded() if self._is_asked_for(handle, request)]
        page = found[request.beginIndex : request.endIndex or None]
        infos = [
            await asyncio.to_thread(self._shown, handle, place)
            for place, handle in enumerate(page, start=request.beginIndex)
        ]
        return wire.QueryModelResponse(message=SUCCESS, modelInfos=infos)

    @answering_method
    async def fetchModel(self, request: wire.FetchModelRequest, context: object) -> wire.FetchModelResponse:
        subject = f"{request.namespace} {request.tableName}"
        change = self._changing(context, "fetchModel", subject, request.serviceIds, lambda: _name(request))
        return await _coded(
            wire.FetchModelResponse, change, FateCode.MODEL_SYNCHRONISATION, lambda: self._fetch(request)
        )

    @answering_method
    async def modelTransfer(self, request: wire.ModelTransferRequest, context: object) -> wire.ModelTransferResponse:
        change = self._changing(context, "modelTransfer", f"{request.namespace} {request.tableName}")
        reply = wire.ModelTransferResponse()

        async def hand_over() -> None:
            self._check_synchronises()
            handle = self._store.find(_name(request))
            reply.modelData = msgspec.json.encode(self._described(handle))
            reply.cacheData = await asyncio.to_thread(cache_file, handle.artifact)

        coded = await _coded(wire.ModelTransferResponse, change, FateCode.MODEL_SYNCHRONISATION, hand_over)
        coded.MergeFrom(reply)
        return coded

    async def _fetch(self, request: wire.FetchModelRequest) -> None:
        """Copy a model and the services that lead to it from another node, which must be among `fate.sources`."""
        self._check_synchronises()
        source = f"{request.sourceIp}:{request.sourcePort}"
        if source not in self._admin.settings.fate.sources:
            raise NotAllowedError(f"node {source!r} is not in this node's fate.sources")
        asked = wire.ModelTransferRequest(tableName=request.tableName, namespace=request.namespace)
        given = await self._asked(source, asked)
        if given.statusCode:
            raise ConflictError(f"node {source} hands nothing over: {given.statusCode} {given.message[:300]}")
        publication = publication_in(given.modelData, self._admin.settings.party)
        if publication.name != _name(request):
            raise ConflictError(f"node {source} hands over another model, {publication.name.namespace}")
        try:
            parts = parts_of_json(given.cacheData)
        except ExportError as error:
            raise ConflictError(f"node {source} hands over what is no model: {error}") from None
        await self._store.keep(parts, publication)
        await self._admin.publishing.load_here(publication.model)
        for service in dict.fromkeys((*publication.services, *request.serviceIds)):
            await self._store.bind_version(service, publication.model)

    async def _asked(self, source: str, request: wire.ModelTransferRequest) -> wire.ModelTransferResponse:
        settings = self._admin.settings
        options = ChannelOptions(max_receive_bytes=settings.fate.max_model_bytes)
        link = channel(settings.transport, source, options)
        try:
            raw = await link.unary(TRANSFER, request.SerializeToString(), settings.fate.fetch_timeout_s)
            return wire.ModelTransferResponse.FromString(raw)
        except RpcError as error:
            raise ConflictError(f"node {source} does not hand it over: {error.code.name}") from None
        except DecodeError:
            raise ConflictError(f"node {source} answers with what is no ModelTransferResponse") from None
        finally:
            await link.close()

    def _check_synchronises(self) -> None:
        if not self._admin.settings.fate.synchronize:
            raise NotAllowedError("nodes do not copy models from each other: fate.synchronize is not set")

    def _is_asked_for(self, handle: ModelHandle, request: wire.QueryModelRequest) -> bool:
        name, services = named(handle), self._store.services_of(handle.id)
        if request.tableName and request.tableName != name.table:
            return False
        if request.namespace and request.namespace != name.namespace:
            return False
        if request.queryType == WITHIN:
            return any(request.serviceId in service for service in services)
        return request.queryType != EXACTLY or request.serviceId in services

    def _shown(self, handle: ModelHandle, index: int) -> wire.ModelInfoEx:
        name = named(handle)
        return wire.ModelInfoEx(
            tableName=name.table,
            namespace=name.namespace,
            serviceIds=self._store.services_of(handle.id),
            content=msgspec.json.encode(self._described(handle)).decode(),
            index=index,
            modelProcessorExt=wire.ModelProcessorExt(nodes=_nodes(handle)),
        )

    def _described(self, handle: ModelHandle) -> dict[str, Any]:
        publishing, resource = self._admin.publishing, resource_of(named(handle))
        life, rule = publishing.life(handle.id), publishing.limits.wanted(LimitKind.RESOURCE, resource)
        shown = described(handle, self._store.services_of(handle.id), int(1_000 * life.since_s) if life else 0)
        return shown if rule is None else {**shown, "allowQps": rule.per_s}

    def _name_of(self, request: wire.PublishRequest) -> FateName:
        return name_of(request, self._admin.settings.party)

    def _changing(
        self,
        context: object,
        what: str,
        subject: str,
        services: Iterable[str] = (),
        name: Callable[[], FateName] | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """A change of these services, or of the model with this name and the services that lead to it."""
        call = call_of(context)
        self._admin.access.admin(call, Role.OPERATOR)
        model, named_services = None, set(services)
        if name is not None:
            with suppress(InvalidRequestError):  # the change itself will say so
                found = name()
                model = ModelId(found.model, found.version)
                named_services |= {found.model, *self._store.services_of(model)}
        state = partial(self._state, sorted(named_services), model)
        return self._admin.audit.change(self._admin.access.who(call), what, subject, state)

    def _state(self, services: Sequence[str], model: ModelId | None) -> object:
        publishing = self._admin.publishing
        state, life = publishing.state(), publishing.life(model) if model else None
        bound = {service: state.services[service] for service in services if service in state.services}
        return {"model": life.state.value if life else "NEW", "services": bound, "default": state.default_service}


async def _coded(
    reply: Callable[..., R],
    change: AbstractAsyncContextManager[None],
    code: FateCode | None,
    work: Callable[[], Awaitable[None]],
) -> R:
    """Do it, and say in the reply how it went. A wrong request is 100; `code`, if given, stands for all else."""
    try:
        async with change:
            await work()
    except Exception as error:  # noqa: BLE001 - the outermost frame of a call
        found, _, text = failure(error)
        natural = code is None or isinstance(error, InvalidRequestError)
        return reply(statusCode=found if natural else int(code or found), message=text)
    return reply(statusCode=0, message=SUCCESS)


def _name(request: Any) -> FateName:
    """Of a request with tableName and namespace."""
    try:
        return FateName(request.namespace, request.tableName)
    except FateNameError as error:
        raise InvalidRequestError(str(error)) from None


def _nodes(handle: ModelHandle) -> Iterator[wire.PipelineNode]:
    if name_in(handle.artifact.manifest.provenance) is not None:
        for name, params in components_of(handle.artifact):
            yield wire.PipelineNode(name=name, params=params)
