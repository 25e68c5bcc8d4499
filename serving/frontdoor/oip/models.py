"""What the protocol's model names mean here: a service, or a version that is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loaders.signature import Signature, TensorSpec
from serving.errors import UnknownNameError
from serving.frontdoor.oip.tensors import BYTES, datatype_of
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.routing import Address, RouteTable

USER_ID = "user_id"
SCORE = "score"
LABEL = "label"
STATUS_PREFIX = "fed_status_"
HOSTS = "fed_hosts"
BINDING_PREFIX = "fed_binding_digest_"
UNLOADED = "it is not loaded"


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor as metadata shows it; `shape` begins with -1 for the rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelView:
    """What one name leads to. The first version describes the inputs; the others of a service agree with it, or refuse
    what does not fit them."""

    name: str
    address: Address
    handles: tuple[ModelHandle, ...]

    @property
    def signature(self) -> Signature:
        return self.handles[0].servable.signature

    @property
    def versions(self) -> list[str]:
        return [handle.id.version for handle in self.handles]

    @property
    def platform(self) -> str:
        return f"tessera_{self.handles[0].artifact.manifest.format}"

    @property
    def hosts(self) -> list[str]:
        return sorted({host for handle in self.handles for host in handle.hosts})

    @property
    def properties(self) -> dict[str, str]:
        """Whom it asks, and which halves belong together in each version."""
        hosts = {HOSTS: ",".join(self.hosts)} if self.hosts else {}
        return hosts | {BINDING_PREFIX + one.id.version: one.artifact.binding_digest for one in self.handles}

    @property
    def bytes(self) -> int:
        """What it holds in memory, in each worker."""
        return sum(handle.bytes for handle in self.handles)

    @property
    def score(self) -> TensorView:
        """A local model's first output appears as itself."""
        declared = self.signature.outputs[0]
        if self.hosts:
            return TensorView(SCORE, "FP64", (-1, self.handles[0].servable.score_width))
        return _view(declared)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the places of the score; none where versions differ in them, since each row has met one of these."""
        named = {handle.artifact.manifest.merge.labels for handle in self.handles}
        return named.pop() if len(named) == 1 else ()

    def inputs(self) -> list[TensorView]:
        user = TensorView(USER_ID, BYTES, (-1, 1), optional=not self.hosts)
        return [user, *map(_view, self.signature.inputs)]

    def further(self) -> list[TensorView]:
        """What a local model gives beside its score."""
        return [] if self.hosts else list(map(_view, self.signature.outputs[1:]))

    def outputs(self) -> list[TensorView]:
        named = any(handle.artifact.manifest.merge.labels for handle in self.handles)
        texts = [LABEL] if named else []
        texts += [STATUS_PREFIX + host for host in self.hosts]
        return [self.score, *self.further(), *(TensorView(name, BYTES, (-1, 1)) for name in texts)]


class Models:
    """Looks names up at the moment they are asked for."""

    def __init__(self, routes: RouteTable, pool: ModelPool) -> None:
        self._routes = routes
        self._pool = pool

    def find(self, name: str, version: str) -> ModelView:
        """Raises UnknownNameError in the words that clients of the protocol look for."""
        address, ids = self._named(name, version)
        handles = tuple(one for one in map(self._pool.find, ids) if one is not None and _is_guest(one))
        if not handles:
            shown = f"{name}/{version}" if version else name
            raise UnknownNameError(
                f"Request for unknown model: {shown!r} is neither a service nor a loaded version that answers callers"
            )
        return ModelView(name, address, handles)

    def by_version(self, name: str, version: str) -> list[ModelView]:
        """One view for each loaded version of a service, or of a model. Raises UnknownNameError."""
        if version or name in self._routes.current.services:
            view = self.find(name, version)
            return [ModelView(name, _explicit(handle.id), (handle,)) for handle in view.handles]
        self.find(name, version)
        return [view for view in self._loaded() if view.name == name]

    def all_by_version(self) -> list[ModelView]:
        """Every service by its versions, then every version that is loaded and not a host's half."""
        return [*self.services(), *self._loaded()]

    def services(self) -> list[ModelView]:
        """Every service by its loaded versions."""
        services = self._routes.current.services
        return [
            ModelView(name, _explicit(handle.id), (handle,))
            for name in sorted(services)
            for handle in filter(None, [self._pool.find(variant.model) for variant in services[name].variants])
        ]

    def versions_of_services(self) -> Iterator[tuple[str, str, str]]:
        """Service, version, and why it does not answer for the service here, else ""."""
        services = self._routes.current.services
        for name in sorted(services):
            for variant in services[name].variants:
                absent = "" if self._pool.find(variant.model) else UNLOADED
                yield name, variant.model.version, services[name].refusal or absent

    def lacks(self, name: str, version: str) -> str:
        """Why a model that there is cannot answer everybody; "" when it can."""
        if version:
            return ""
        return next((why for service, _, why in self.versions_of_services() if service == name and why), "")

    def answering(self, view: ModelView, key: str) -> str:
        """The version that `view` leads to for a user, or for a case without one."""
        if len(view.handles) == 1:
            return view.handles[0].id.version
        return self._routes.current.target(view.address, key).model.version

    def _named(self, name: str, version: str) -> tuple[Address, Sequence[ModelId]]:
        """A version of a service is that version by itself."""
        service = self._routes.current.services.get(name)
        if version:
            named = ModelId(name, version)
            if service is not None and self._pool.find(named) is None:
                of_service = [variant.model for variant in service.variants if variant.model.version == version]
                named = of_service[0] if of_service else named
            return _explicit(named), [named]
        if service is not None:
            return (name, "", ""), [variant.model for variant in service.variants]
        newest = max((handle.id for handle in self._guest_halves() if handle.id.model == name), default=None)
        return ("", name, newest.version if newest else ""), [newest] if newest else []

    def _loaded(self) -> list[ModelView]:
        return [ModelView(handle.id.model, _explicit(handle.id), (handle,)) for handle in self._guest_halves()]

    def _guest_halves(self) -> list[ModelHandle]:
        return list(filter(_is_guest, self._pool.loaded))


def _is_guest(handle: ModelHandle) -> bool:
    """A host's half has numbers for its guest alone."""
    return handle.artifact.manifest.role == "guest"


def _explicit(version: ModelId) -> Address:
    return ("", version.model, version.version)


def _view(spec: TensorSpec) -> TensorView:
    return TensorView(spec.name, datatype_of(spec.dtype), spec.shape if len(spec.shape) > 1 else (-1, 1))
