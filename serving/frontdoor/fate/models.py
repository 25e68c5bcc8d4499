"""`ModelService` on the admin port: FATE-Flow loads and binds models here, people look at them and take them out.

What FATE-Serving leaves to chance is refused here: a bind whose hosts do not hold the version, another model under a
name that is bound already, addresses and files that the settings do not allow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from loaders.artifact import ArtifactError
from loaders.fate.component import ComponentError, Mode, Site
from loaders.fate.export import ExportError, Parts
from loaders.fate.importing import store_half
from loaders.fate.names import FateName, FateNameError, name_in
from loaders.registry import open_half
from serving.bindings import VariantWeight, variant_model
from serving.control import Service
from serving.errors import ConflictError, InvalidRequestError, UnknownNameError
from serving.frontdoor.fate.fetching import ModelSources
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.publishing import Publishing, Terms
from serving.routing import BUCKETS
from serving.settings import Settings
from serving.unmanaged import STANDING
from tessera.compat import fate_model_service_pb2 as wire

GUEST, HOST = "guest", "host"
UNFIT = set("?:/&")
"""Characters that FATE-Serving allows in no service id."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What is said of this party's half: its FATE name, role, the parties of the model, and the services that lead to
    it where it comes from."""

    name: FateName
    role: str
    guest: str
    hosts: tuple[str, ...]
    services: tuple[str, ...] = ()

    @property
    def model(self) -> ModelId:
        return ModelId(self.name.model, self.name.version)


def name_of(request: wire.PublishRequest, party: str) -> FateName:
    """Of this party's half, as FATE-Flow fills a publish request: `local` is this party. Raises InvalidRequestError."""
    if request.local.partyId != party:
        raise InvalidRequestError(f"local.partyId is {request.local.partyId!r}, this node is party {party!r}")
    own = request.model[request.local.role].roleModelInfo
    try:
        if party in own:
            return FateName(own[party].namespace, own[party].tableName)
        return FateName(request.namespace, request.tableName)
    except FateNameError as error:
        raise InvalidRequestError(f"model of {party}: {error}") from None


def publication_of(request: wire.PublishRequest, party: str) -> Publication:
    """Any role but guest counts as host. Raises InvalidRequestError."""
    name = name_of(request, party)
    role = GUEST if request.local.role == GUEST else HOST
    guests = sorted(request.role[GUEST].partyId) if GUEST in request.role else []
    hosts = sorted(request.role[HOST].partyId) if HOST in request.role else []
    if len(guests) != 1 or party not in (guests if role == GUEST else hosts):
        raise InvalidRequestError("role must name one guest, the hosts, and this party among them")
    return Publication(name, role, guests[0], tuple(hosts))


class FateModelStore:
    """Loads, binds, looks up and takes out models by FATE's names."""

    def __init__(self, settings: Settings, publishing: Publishing, pool: ModelPool) -> None:
        self._settings = settings
        self._registry = settings.registry_folder
        self._mode = Mode(settings.fate.mode.value)
        self._sources = ModelSources(settings.fate)
        self._publishing = publishing
        self._pool = pool

    async def load(self, request: wire.PublishRequest) -> None:
        """A version that the registry has already is not fetched again: versions never change."""
        wanted = publication_of(request, self._settings.party)
        if not await asyncio.to_thread(self._is_there, wanted):
            parts = await self._sources.parts(request.loadType, request.filePath, wanted.name)
            await self.keep(parts, wanted)
        await self._publishing.load_here(wanted.model)

    async def keep(self, parts: Parts, wanted: Publication) -> None:
        """Store this party's half. Raises ConflictError naming the component that cannot be served."""
        site = Site(wanted.role, self._settings.party, wanted.hosts, self._mode)
        try:
            await asyncio.to_thread(store_half, self._registry, parts, wanted.name, site, wanted.guest)
        except (ExportError, ComponentError, ArtifactError) as error:
            raise ConflictError(f"{wanted.name.namespace} {wanted.name.table}: {error}") from None

    def _is_there(self, wanted: Publication) -> bool:
        try:
            artifact = open_half(self._registry, wanted.model.model, wanted.model.version, self._settings.party)
        except ArtifactError:
            return False
        return name_in(artifact.manifest.provenance) == wanted.name

    async def bind(self, request: wire.PublishRequest) -> None:
        """The next request to the service meets this version alone."""
        if not request.serviceId or UNFIT & set(request.serviceId):
            raise InvalidRequestError(f"serviceId is required, and may hold none of {' '.join(sorted(UNFIT))}")
        name = name_of(request, self._settings.party)
        await self.bind_version(request.serviceId, ModelId(name.model, name.version))

    async def use(self, request: wire.PublishRequest) -> None:
        """A bind without a service id, as FATE-Flow 1.0 asks for it: this version is in use for its namespace, and the
        namespace for this party, from the next request on."""
        name = name_of(request, self._settings.party)
        await self.bind_version(name.model, ModelId(name.model, name.version))
        await self._publishing.set_default_service(name.model)

    async def bind_version(self, service: str, model: ModelId) -> None:
        current = self._publishing.state().services.get(service)
        revision = current.revision if current else 0
        await self._publishing.online(
            service, revision, [VariantWeight(model, BUCKETS)], terms=Terms(acceptance=STANDING)
        )

    async def unbind(self, services: list[str], name: FateName) -> None:
        """Raises ConflictError before anything changes when one of the services leads elsewhere."""
        if not services:
            raise InvalidRequestError("serviceIds names no service")
        model = ModelId(name.model, name.version)
        revisions = {service: self._bound(service, model).revision for service in services}
        for service, revision in revisions.items():
            await self._publishing.offline(service, revision)

    async def unload(self, name: FateName) -> None:
        """Takes the services off that lead to this version alone, as FATE-Serving does; a version that shares a
        service with others stays."""
        model = ModelId(name.model, name.version)
        if self._pool.find(model) is None:
            raise UnknownNameError(f"{name.namespace} {name.table} is not loaded at this party")
        for service in self.services_of(model):
            await self._publishing.offline(service, self._bound(service, model).revision)
        await self._publishing.unload(model)

    def _bound(self, service: str, model: ModelId) -> Service:
        found = self._publishing.state().services.get(service)
        if found is None:
            raise UnknownNameError(f"unknown service {service!r}")
        if {variant_model(variant) for variant in found.current.variants} != {model}:
            raise ConflictError(f"service {service!r} does not lead to {model} alone")
        return found

    def services_of(self, model: ModelId) -> list[str]:
        """Those whose current binding has this version."""
        services: Mapping[str, Service] = self._publishing.state().services
        return sorted(
            name
            for name, service in services.items()
            if any(variant_model(variant) == model for variant in service.current.variants)
        )

    def loaded(self) -> list[ModelHandle]:
        return [status.handle for status in self._publishing.models() if status.handle is not None]

    def find(self, name: FateName) -> ModelHandle:
        """Raises UnknownNameError."""
        handle = self._pool.find(ModelId(name.model, name.version))
        if handle is None or name_in(handle.artifact.manifest.provenance) is None:
            raise UnknownNameError(f"{name.namespace} {name.table} is not loaded at this party")
        return handle
