"""Publishing at the guest: load a version at every party, bind versions to a service, go back, unload.

Nothing here knows the wire. Every change is a compare-and-set on the wanted state; the reconciler makes it true.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from serving import bindings
from serving.app_publishing import AppPublishing
from serving.control import Binding, Hold, Service, State, TraceChoice
from serving.errors import ConflictError, NotKeptError, UnknownNameError
from serving.holds import Holder, HoldingPeer, Holds, HostHolds, hold_model
from serving.lifecycle import Lifecycle, ReplicaOutcome
from serving.limit_publishing import LimitPublishing
from serving.loads import LoadingPeer, Loads
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.reconciler import Reconciler
from serving.replicas import FOLLOW_S, Replicas
from serving.reports import ReplicaModel, ReplicaReport
from serving.routing import RouteTable
from serving.settings import LogLevel
from serving.uninterrupted import to_the_end
from serving.unmanaged import NOBODY, Acceptance, UnmanagedHosts
from serving.wanted import Wanted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One version at this party, for people. `held_by` names services and parties that need it."""

    life: Lifecycle
    handle: ModelHandle | None
    held_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """Of a binding, beside its variants: `shadows` run beside them for a share of the users; `acceptance` of hosts that
    take no holds."""

    shadows: Sequence[bindings.VariantWeight] = ()
    acceptance: Acceptance = NOBODY


PLAIN = Terms()


class PublishingPeer(HoldingPeer, LoadingPeer, Protocol):
    """Another party, as publishing needs it. Every method raises PeerError naming the party and the reason."""


BindingRules = Callable[[Service | None], Binding]
"""From the service as it is to its next binding."""


class Publishing:
    """The admin's view of one node. `peers` by party id; `load_timeout_s` bounds any one load, at all parties."""

    def __init__(
        self,
        replicas: Replicas,
        reconciler: Reconciler,
        pool: ModelPool,
        peers: Mapping[str, PublishingPeer],
        load_timeout_s: float,
        unmanaged: UnmanagedHosts | None = None,
    ) -> None:
        self._unmanaged = unmanaged or UnmanagedHosts()
        self._party = replicas.party
        self._replicas = replicas
        self._wanted = Wanted(replicas.store, reconciler.apps)
        self.apps = AppPublishing(self._wanted, reconciler.apps, replicas, load_timeout_s)
        self.limits = LimitPublishing(self._wanted, replicas)
        self._reconciler = reconciler
        self._pool = pool
        self._loads = Loads(self._wanted, reconciler, pool, replicas, peers, load_timeout_s)
        self.host_holds = HostHolds(peers)
        """What this party holds at the hosts of its models."""
        self.holds = Holds(self._wanted)
        """What other parties hold here."""
        # A renewal beside a change could bring back a hold that the change has let go of.
        self._binding = asyncio.Lock()

    @property
    def routes(self) -> RouteTable:
        return self._wanted.routes

    @property
    def replica(self) -> str:
        return self._replicas.name

    def restore(self) -> None:
        """On start: want what the kept state wants, and follow it from here on."""
        self._loads.follow()
        self.apps.follow()
        self._replicas.start(self._reported, self._follow, self.apps.reported)

    async def caught_up(self) -> None:
        """After `restore`: returns when all is loaded, or known not to load, that is wanted now, and not only when this
        replica began."""
        await self._reconciler.all_settled()
        await self._replicas.catch_up()
        await self._reconciler.all_settled()

    def _follow(self) -> None:
        self._wanted.follow()
        self._loads.follow()
        self.apps.follow()

    def _reported(self) -> dict[str, ReplicaModel]:
        return {
            str(model): ReplicaModel(life.state.value, life.reason, handle.artifact.binding_digest if handle else "")
            for model, life in self._reconciler.lives.items()
            for handle in (self._pool.find(model),)
        }

    async def load(self, model: ModelId, caller_s: float | None = None) -> tuple[list[ReplicaOutcome], str]:
        """Load on every replica of every party, within limits.load_timeout_s and the caller's remaining time: see
        `Loads.everywhere`."""
        return await self._loads.everywhere(model, caller_s)

    async def load_here(
        self, model: ModelId, binding_digest: str = "", caller_s: float | None = None
    ) -> tuple[list[ReplicaOutcome], ModelHandle]:
        """Load on every replica of this party: see `Loads.here`."""
        return await self._loads.here(model, binding_digest, caller_s)

    async def hold_here(self, hold: Hold, binding_digest: str, replaces: str | None = None) -> None:
        """Grant another party's hold on a version that is READY here with this binding. Raises ConflictError."""
        model = hold_model(hold)
        handle = self._pool.find(model)
        if handle is None:
            raise ConflictError(f"{model} is not loaded at party {self._party!r}")
        handle.check_binding(binding_digest)
        await self._replicas.require([handle], FOLLOW_S)
        await self.holds.grant(hold, replaces)

    async def online(
        self,
        service: str,
        revision: int,
        weights: Sequence[bindings.VariantWeight],
        app: str = "",
        app_parameters: str = "",
        terms: Terms = PLAIN,
    ) -> Service:
        """Bind versions to a service after every party confirmed that it holds them, or was accepted unmanaged. Raises
        ConflictError for a stale revision or a version that some party does not hold, InvalidRequestError for wrong
        weights or app."""
        bindings.check_weights(service, weights)
        bindings.check_shadows(terms.shadows, weights)
        models = [weight.model for weight in (*weights, *terms.shadows)]
        handles = [self._ready(model) for model in models]
        own = handles[0].artifact.manifest.app or "passthrough"
        signatures = [handle.servable.signature for handle in handles]
        chosen = await self.apps.choose(app or own, app_parameters, signatures)
        unmanaged = await self._unmanaged.check(handles, terms.acceptance)

        def rules(current: Service | None) -> Binding:
            return Binding(
                variants=bindings.variants(current, weights),
                app=chosen,
                app_parameters=app_parameters,
                shadows=bindings.shadow_variants(terms.shadows),
                unmanaged=unmanaged,
            )

        async with self._binding:
            self._at_revision(self._wanted.state, service, revision)
            return await to_the_end(self._hold_and_bind(service, revision, models, rules))

    async def rollback(self, service: str, revision: int) -> Service:
        """Back to the previous binding, one step; the binding left becomes the previous one."""
        async with self._binding:
            current = self._at_revision(self._wanted.state, service, revision)
            if current is None:
                raise UnknownNameError(f"unknown service {service!r}")
            target = current.previous
            if target is None:
                raise ConflictError(f"service {service!r} has no previous binding")
            await self.apps.require(target.app)
            models = [bindings.variant_model(variant) for variant in bindings.bound(target)]
            self._unmanaged.refuse_others(map(self._ready, models), target.unmanaged)
            return await to_the_end(self._hold_and_bind(service, revision, models, lambda _: target))

    async def offline(self, service: str, revision: int) -> None:
        """Forget a service and its previous binding, also as the default one; its versions stay loaded."""

        def without(state: State) -> State:
            self._at_revision(state, service, revision)
            return bindings.without_service(state, service)

        async with self._binding:
            current = self._at_revision(self._wanted.state, service, revision)
            if current is None:
                raise UnknownNameError(f"unknown service {service!r}")
            await to_the_end(self._unbind(service, without, current))

    async def remove(self, service: str, revision: int) -> bool:
        """As `offline`, but the default service is refused with ConflictError; whether there was one."""

        def without(state: State) -> State:
            self._at_revision(state, service, revision)
            if service == state.default_service:
                raise ConflictError(f"{service!r} is the default service; choose another one, or none, first")
            return bindings.without_service(state, service)

        async with self._binding:
            current = self._wanted.state.services.get(service)
            if current is not None:
                await to_the_end(self._unbind(service, without, current))
            return current is not None

    async def unload(self, model: ModelId, force: bool = False) -> None:
        """Take a version out of memory here; returns when no request uses it. Raises ConflictError with its users."""
        if model not in bindings.wanted_models(self._wanted.state) and self._pool.find(model) is None:
            raise UnknownNameError(f"model {model} is not loaded at this party")

        def let_go(state: State) -> State:
            holders = self._holders(state, model)
            if holders and not force:
                raise ConflictError(f"{model} is needed by {', '.join(holders)}; unload it with force if it must go")
            return bindings.without_model(state, model)

        await self._wanted.change(let_go)
        logger.info("%s is to be unloaded%s", model, " by force" if force else "")
        self._loads.follow()
        await self._reconciler.settled(model)
        self._reconciler.forget(model)

    async def set_default_service(self, service: str) -> None:
        """`service` may be "" for none."""

        def with_default(state: State) -> State:
            if service and service not in state.services:
                raise UnknownNameError(f"unknown service {service!r}")
            return msgspec.structs.replace(state, default_service=service)

        await self._wanted.change(with_default)
        logger.info("the default service is %s", service or "none")

    async def set_log_level(self, level: LogLevel | None) -> None:
        """At all replicas, in place of the settings'; None for theirs."""
        name = "" if level is None else level.value
        await self._wanted.change(lambda state: msgspec.structs.replace(state, log_level=name))

    async def set_traces(self, choice: TraceChoice) -> None:
        """At all replicas, in place of the settings'."""
        await self._wanted.change(
            lambda state: msgspec.structs.replace(
                state, traces=msgspec.structs.replace(choice, serial=state.traces.serial + 1)
            )
        )

    def watch(self, watcher: Callable[[State], None]) -> None:
        """Have it called with the wanted state now and after every change, whoever made it."""
        self._wanted.watch(watcher)

    def models(self) -> list[ModelStatus]:
        state = self._wanted.state
        return [
            ModelStatus(life, self._pool.find(model), tuple(self._holders(state, model)))
            for model, life in sorted(self._reconciler.lives.items())
        ]

    def heard(self) -> list[ReplicaReport]:
        """What every replica of this party says of its models and apps, this one first."""
        return self._replicas.heard()

    def is_needed(self, model: ModelId) -> bool:
        """Whether a load of it is under way, or a binding or another party needs it."""
        return self._loads.is_asked(model) or bool(self._holders(self._wanted.state, model))

    def life(self, model: ModelId) -> Lifecycle | None:
        return self._reconciler.lives.get(model)

    def state(self) -> State:
        return self._wanted.state

    async def keep_holds(self) -> bool:
        """Renew this guest's holds at its hosts, and forget the expired ones that others had here. Whether a hold is
        lacking."""
        async with self._binding:
            services = self._wanted.state.services
            self.host_holds.forget_others(services)
            await asyncio.gather(
                *(self.host_holds.renew(Holder.of(name, one), self._needed(one)) for name, one in services.items())
            )
        await self.holds.sweep()
        return bool(self.host_holds.lacking)

    async def _hold_and_bind(
        self, service: str, revision: int, models: Sequence[ModelId], rules: BindingRules
    ) -> Service:
        handles = [self._ready(model) for model in models]
        bindings.check_widths(handles)
        await self._replicas.require(handles, FOLLOW_S)
        holder = Holder(service, revision + 1, secrets.token_hex(8))
        try:
            await self.host_holds.take(holder, handles)
            before, state = await self._bind(holder, models, rules)
        except Exception as error:
            if not (isinstance(error, NotKeptError) and error.in_doubt):  # then what is not needed expires
                await self.host_holds.release(holder, handles)
            raise
        stored = state.services[service]  # whatever goes wrong from here on, it is bound and needs its holds
        if before is not None:
            await self._pass_on(Holder.of(service, before), self._needed(before), holder, self._needed(stored))
        await self._replicas.follow(state.revision, FOLLOW_S)
        shares = ", ".join(f"{v.model}/{v.version} {v.weight / 100:g} %" for v in stored.current.variants)
        logger.info("service %s is at revision %d: %s", service, stored.revision, shares)
        return stored

    async def _unbind(self, service: str, without: Callable[[State], State], before: Service) -> None:
        await self._wanted.change(without)
        logger.info("service %s is offline", service)
        await self.host_holds.release(Holder.of(service, before), self._needed(before))

    async def _bind(
        self, holder: Holder, models: Iterable[ModelId], rules: BindingRules
    ) -> tuple[Service | None, State]:
        """What the service was before, and the state in which it is bound."""
        service, revision = holder.service, holder.revision - 1
        before: Service | None = None

        def bound(state: State) -> State:
            nonlocal before
            before = current = self._at_revision(state, service, revision)
            gone = sorted(set(models) - bindings.wanted_models(state))
            if gone:
                raise ConflictError(f"{gone[0]} has been unloaded meanwhile")
            binding = rules(current)
            bindings.check_app_wanted(state, binding.app)
            changed = Service(
                revision=holder.revision,
                publish=holder.publish,
                epoch=state.revision + 1,
                salt=current.salt if current else secrets.token_hex(16),
                current=binding,
                previous=current.current if current else None,
            )
            return msgspec.structs.replace(state, services={**state.services, service: changed})

        state = await self._wanted.change(bound)
        return before, state

    async def _pass_on(self, left: Holder, held: set[ModelHandle], holder: Holder, needed: set[ModelHandle]) -> None:
        """What the binding before held is held for the one that took its place, or not any more."""
        await asyncio.gather(
            self.host_holds.renew(holder, held & needed, left.publish), self.host_holds.release(left, held - needed)
        )

    def _needed(self, service: Service | None) -> set[ModelHandle]:
        """The loaded versions of a service's current and previous binding."""
        variants = bindings.all_variants(service) if service else []
        found = {self._pool.find(bindings.variant_model(variant)) for variant in variants}
        return {handle for handle in found if handle is not None}

    def _ready(self, model: ModelId) -> ModelHandle:
        handle = self._pool.find(model)
        if handle is None:
            raise ConflictError(f"{model} is not loaded at this party; `tessera model load` it first")
        if handle.artifact.manifest.role != "guest":
            raise ConflictError(f"this party is {handle.artifact.manifest.role} of {model}; its guest puts it online")
        return handle

    def _at_revision(self, state: State, service: str, revision: int) -> Service | None:
        current = state.services.get(service)
        actual = 0 if current is None else current.revision
        if actual != revision:
            raise ConflictError(
                f"service {service!r} is at revision {actual}, not {revision}; look at it and try again"
            )
        return current

    def _holders(self, state: State, model: ModelId) -> list[str]:
        held = [f"party {hold.party!r} (service {hold.service!r})" for hold in self.holds.of(model, state)]
        return bindings.users_of_model(state, model) + list(dict.fromkeys(held))
