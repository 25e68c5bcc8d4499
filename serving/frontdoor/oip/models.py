"""What the protocol's model names mean here: a service, or a version that is loaded."""

from __future__ import annotations

from collections.abc import Sequence
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
    def score(self) -> TensorView:
        """A local model's first output appears as itself."""
        declared = self.signature.outputs[0]
        if self.hosts:
            return TensorView(SCORE, "FP64", (-1, self.handles[0].servable.score_width))
        return _view(declared)

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
        handles = tuple(filter(None, map(self._pool.find, ids)))
        if not handles:
            shown = f"{name}/{version}" if version else name
            raise UnknownNameError(f"Request for unknown model: {shown!r} is neither a service nor a loaded version")
        return ModelView(name, address, handles)

    def all(self) -> list[ModelView]:
        """Every service, then every version that is loaded and not a host's half."""
        services = [self._service(name) for name in sorted(self._routes.current.services)]
        versions = [self._version(handle) for handle in self._guest_halves()]
        return [view for view in (*services, *versions) if view.handles]

    def _named(self, name: str, version: str) -> tuple[Address, Sequence[ModelId]]:
        if version:
            return ("", name, version), [ModelId(name, version)]
        if name in self._routes.current.services:
            return (name, "", ""), [variant.model for variant in self._routes.current.services[name].variants]
        newest = max((handle.id for handle in self._guest_halves() if handle.id.model == name), default=None)
        return ("", name, newest.version if newest else ""), [newest] if newest else []

    def _service(self, name: str) -> ModelView:
        address, ids = self._named(name, "")
        return ModelView(name, address, tuple(filter(None, map(self._pool.find, ids))))

    def _version(self, handle: ModelHandle) -> ModelView:
        return ModelView(handle.id.model, ("", handle.id.model, handle.id.version), (handle,))

    def _guest_halves(self) -> list[ModelHandle]:
        return [one for one in self._pool.loaded if one.artifact.manifest.role == "guest"]


def _view(spec: TensorSpec) -> TensorView:
    return TensorView(spec.name, datatype_of(spec.dtype), spec.shape if len(spec.shape) > 1 else (-1, 1))
