"""Publishing at the guest: load a version at every party, bind versions to a service, go back, unload.

Nothing here knows the wire. Every change is a compare-and-set on the wanted state; the reconciler makes it true.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import msgspec

from apps.catalog import make_app
from serving import bindings
from serving.control import Binding, ControlStore, Hold, Service, State
from serving.errors import ConflictError, PeerError, UnknownNameError
from serving.holds import HOLD_TTL_S, Holds, hold_model
from serving.lifecycle import Lifecycle, LoadState, ReplicaOutcome
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.reconciler import Reconciler
from serving.routing import RouteTable


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One version at this party, for people. `held_by` names services and parties that need it."""

    life: Lifecycle
    handle: ModelHandle | None
    held_by: tuple[str, ...]


class PublishingPeer(Protocol):
    """Another party, as publishing needs it. Every method raises PeerError naming the party and the reason."""

    async def load(self, model: ModelId, binding_digest: str, timeout_s: float) -> list[ReplicaOutcome]: ...

    async def hold(self, service: str, model: ModelId, binding_digest: str, revision: int, ttl_s: int) -> None: ...


REPLICA = "0"
"""This process among the party's replicas; there is one so far."""

BindingRules = Callable[[State], Binding]


class Publishing:
    """The admin's view of one node. `peers` by party id; `load_timeout_s` bounds the wait for any one load."""

    def __init__(
        self,
        party: str,
        store: ControlStore,
        reconciler: Reconciler,
        pool: ModelPool,
        peers: Mapping[str, PublishingPeer],
        load_timeout_s: float,
    ) -> None:
        self.routes = RouteTable(bindings.routes(store.read(), make_app("passthrough")))
        self._party = party
        self._store = store
        self._reconciler = reconciler
        self._pool = pool
        self._peers = peers
        self._load_timeout_s = load_timeout_s
        self._holds = Holds(store, self._change)
        self._asked: list[ModelId] = []

    @property
    def holds(self) -> Holds:
        return self._holds

    def restore(self) -> None:
        """On start: want what the kept state wants."""
        self._reconcile()

    async def load(self, model: ModelId) -> tuple[list[ReplicaOutcome], str]:
        """Load here, then at every host of the model. Returns an outcome per replica and the binding digest (hex).
        Raises ConflictError with the reason when this party's own half does not load."""
        own, handle = await self.load_here(model)
        remote = await asyncio.gather(*(self._load_at(host, handle) for host in handle.hosts))
        return [own, *(outcome for outcomes in remote for outcome in outcomes)], handle.artifact.binding_digest

    async def load_here(self, model: ModelId, binding_digest: str = "") -> tuple[ReplicaOutcome, ModelHandle]:
        """Load this party's half; when `binding_digest` is given, only a half of that binding. Raises ConflictError."""
        known = self._pool.find(model)
        self._asked.append(model)
        if known is None:
            self._reconcile(again={model})
        try:
            handle = await asyncio.wait_for(self._reconciler.loaded(model), self._load_timeout_s)
            if binding_digest:
                handle.check_binding(binding_digest)
            if known is None:
                await self._change(lambda state: bindings.with_model(state, model))
        except TimeoutError:
            raise ConflictError(f"{model} is still loading after {self._load_timeout_s:g} s; ask again") from None
        finally:
            # What was not acknowledged is not wanted either.
            self._asked.remove(model)
            self._reconcile()
        state = LoadState.LOADED if known is None else LoadState.ALREADY_LOADED
        return ReplicaOutcome(self._party, REPLICA, state), handle

    async def hold_here(self, hold: Hold, binding_digest: str) -> None:
        """Grant another party's hold on a version that is READY here with this binding. Raises ConflictError."""
        model = hold_model(hold)
        handle = self._pool.find(model)
        if handle is None:
            raise ConflictError(f"{model} is not loaded at party {self._party!r}")
        handle.check_binding(binding_digest)
        await self._holds.grant(hold)

    async def online(
        self,
        service: str,
        revision: int,
        weights: Sequence[bindings.VariantWeight],
        app: str = "",
        app_parameters: str = "",
    ) -> Service:
        """Bind versions to a service after every party confirmed that it holds them. Raises ConflictError for a stale
        revision or a version that some party does not hold, InvalidRequestError for wrong weights or app."""
        bindings.check_weights(service, weights)
        handles = [self._ready(weight.model) for weight in weights]
        chosen = app or handles[0].artifact.manifest.app or "passthrough"
        bindings.check_app(chosen, app_parameters)
        current = self._at_revision(service, revision)

        def rules(state: State) -> Binding:
            return Binding(
                variants=bindings.variants(state.services.get(service), weights),
                app=chosen,
                app_parameters=app_parameters,
            )

        await self._hold_everywhere(service, handles, revision + 1)
        previous = None if current is None else current.current
        return await self._bind(service, revision, rules, previous)

    async def rollback(self, service: str, revision: int) -> Service:
        """Back to the previous binding, one step; the binding left becomes the previous one."""
        current = self._at_revision(service, revision)
        if current is None:
            raise UnknownNameError(f"unknown service {service!r}")
        if current.previous is None:
            raise ConflictError(f"service {service!r} has no previous binding")
        target = current.previous
        handles = [self._ready(ModelId(variant.model, variant.version)) for variant in target.variants]
        await self._hold_everywhere(service, handles, revision + 1)
        return await self._bind(service, revision, lambda _: target, current.current)

    async def unload(self, model: ModelId, force: bool = False) -> None:
        """Take a version out of memory here; returns when no request uses it. Raises ConflictError with its users."""
        state = self._store.read()
        if model not in bindings.wanted_models(state) and self._pool.find(model) is None:
            raise UnknownNameError(f"model {model} is not loaded at this party")
        holders = self._holders(state, model)
        if holders and not force:
            raise ConflictError(f"{model} is needed by {', '.join(holders)}; unload it with force if it must go")
        await self._change(lambda state: bindings.without_model(state, model))
        self._reconcile()
        await self._reconciler.settled(model)
        self._reconciler.forget(model)

    async def set_default_service(self, service: str) -> None:
        """`service` may be "" for none."""
        if service and service not in self._store.read().services:
            raise UnknownNameError(f"unknown service {service!r}")
        await self._change(lambda state: msgspec.structs.replace(state, default_service=service))

    def models(self) -> list[ModelStatus]:
        state = self._store.read()
        return [
            ModelStatus(life, self._pool.find(model), tuple(self._holders(state, model)))
            for model, life in sorted(self._reconciler.lives.items())
        ]

    def state(self) -> State:
        return self._store.read()

    async def renew_holds(self) -> list[str]:
        """Renew this guest's holds at its hosts; returns what could not be renewed, for the log."""
        problems = []
        for name, service in self._store.read().services.items():
            for handle in self._handles_of(service):
                try:
                    await self._hold_everywhere(name, [handle], service.revision)
                except ConflictError as error:
                    problems.append(str(error))
        return problems

    def _reconcile(self, again: Set[ModelId] = frozenset()) -> None:
        """Want what the state wants, and what loads are being asked for right now."""
        self._reconciler.apply({*bindings.wanted_models(self._store.read()), *self._asked}, again)

    def _handles_of(self, service: Service) -> list[ModelHandle]:
        bindings = [service.current, *([service.previous] if service.previous else [])]
        models = {ModelId(variant.model, variant.version) for binding in bindings for variant in binding.variants}
        return [handle for handle in map(self._pool.find, sorted(models)) if handle is not None]

    async def _load_at(self, host: str, handle: ModelHandle) -> list[ReplicaOutcome]:
        peer = self._peers.get(host)
        if peer is None:
            return [ReplicaOutcome(host, "", LoadState.FAILED, f"party {host!r} has no address in this node's peers")]
        try:
            return await peer.load(handle.id, handle.artifact.binding_digest, self._load_timeout_s)
        except PeerError as error:
            return [ReplicaOutcome(host, "", LoadState.FAILED, str(error))]

    async def _hold_everywhere(self, service: str, handles: Sequence[ModelHandle], revision: int) -> None:
        await asyncio.gather(
            *(self._hold_at(host, service, handle, revision) for handle in handles for host in handle.hosts)
        )

    async def _hold_at(self, host: str, service: str, handle: ModelHandle, revision: int) -> None:
        peer = self._peers.get(host)
        if peer is None:
            raise ConflictError(f"party {host!r} has no address in this node's peers")
        try:
            await peer.hold(service, handle.id, handle.artifact.binding_digest, revision, HOLD_TTL_S)
        except PeerError as error:
            raise ConflictError(f"{handle.id} is not ready at every party: {error}") from None

    def _ready(self, model: ModelId) -> ModelHandle:
        handle = self._pool.find(model)
        if handle is None:
            raise ConflictError(f"{model} is not loaded at this party; `tessera model load` it first")
        if handle.artifact.manifest.role != "guest":
            raise ConflictError(f"this party is {handle.artifact.manifest.role} of {model}; its guest puts it online")
        return handle

    def _at_revision(self, service: str, revision: int) -> Service | None:
        current = self._store.read().services.get(service)
        actual = 0 if current is None else current.revision
        if actual != revision:
            raise ConflictError(
                f"service {service!r} is at revision {actual}, not {revision}; look at it and try again"
            )
        return current

    async def _bind(self, service: str, revision: int, rules: BindingRules, previous: Binding | None) -> Service:
        def change(state: State) -> State:
            current = self._at_revision(service, revision)
            bound = Service(
                revision=revision + 1,
                epoch=state.revision + 1,
                salt=current.salt if current else secrets.token_hex(16),
                current=rules(state),
                previous=previous,
            )
            return msgspec.structs.replace(state, services={**state.services, service: bound})

        return (await self._change(change)).services[service]

    async def _change(self, change: Callable[[State], State]) -> State:
        """Make one change durable, then let requests see it. Tried again when another change came in between."""
        while True:
            state = self._store.read()
            wanted = change(state)
            try:
                stored = await asyncio.to_thread(self._store.compare_and_set, state.revision, wanted)
            except ConflictError:
                if self._store.read().revision == state.revision:
                    raise
            else:
                # Several changes may have been stored by now: the newest is what requests must see.
                self.routes.current = bindings.routes(self._store.read(), self.routes.current.explicit_app)
                return stored

    def _holders(self, state: State, model: ModelId) -> list[str]:
        bound = [
            f"service {name!r}"
            for name, service in state.services.items()
            if any(model == ModelId(variant.model, variant.version) for variant in bindings.all_variants(service))
        ]
        return bound + [f"party {hold.party!r} (service {hold.service!r})" for hold in self._holds.of(model)]
