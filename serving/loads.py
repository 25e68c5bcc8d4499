"""Loads of a version: here, on the other replicas of this party, at the hosts of the model. One deadline bounds all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Set
from typing import Protocol, TypeVar

from serving import bindings
from serving.errors import ConflictError, PeerError
from serving.holds import no_address
from serving.lifecycle import LoadState, ReplicaOutcome
from serving.load_time import LoadTime
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.reconciler import Reconciler
from serving.replicas import Replicas
from serving.wanted import Wanted

logger = logging.getLogger(__name__)

T = TypeVar("T")


class LoadingPeer(Protocol):
    """Another party, as loads need it. Raises PeerError naming the party and the reason."""

    async def load(self, model: ModelId, binding_digest: str, timeout_s: float) -> list[ReplicaOutcome]: ...


class Loads:
    """`peers` by party id; `timeout_s` bounds every load, and less when its caller has less time."""

    def __init__(
        self,
        wanted: Wanted,
        reconciler: Reconciler,
        pool: ModelPool,
        replicas: Replicas,
        peers: Mapping[str, LoadingPeer],
        timeout_s: float,
    ) -> None:
        self._wanted = wanted
        self._reconciler = reconciler
        self._pool = pool
        self._replicas = replicas
        self._peers = peers
        self._timeout_s = timeout_s
        self._asked: list[ModelId] = []

    def is_asked(self, model: ModelId) -> bool:
        """Whether a load of it is under way."""
        return model in self._asked

    def follow(self, again: Set[ModelId] = frozenset()) -> None:
        """Want what the state wants, and what loads are being asked for right now."""
        wanted, asked_anew = self._wanted.models()
        self._reconciler.apply({*wanted, *self._asked}, {*again, *asked_anew})

    async def everywhere(self, model: ModelId, caller_s: float | None) -> tuple[list[ReplicaOutcome], str]:
        """Load here, then on the other replicas and at every host of the model at once. Returns an outcome per replica,
        also of those that did not answer in time, and the binding digest (hex). Raises as `here`."""
        time = LoadTime.of(self._timeout_s, caller_s)
        own, handle = await self._on_this_replica(model, "", time)
        outcomes = await asyncio.gather(
            self._on_the_others(model, time), *(self._at(host, handle, time) for host in handle.hosts)
        )
        return [own, *(one for found in outcomes for one in found)], handle.artifact.binding_digest

    async def here(
        self, model: ModelId, binding_digest: str, caller_s: float | None
    ) -> tuple[list[ReplicaOutcome], ModelHandle]:
        """Load this party's half on all its replicas; when `binding_digest` is given, only a half of that binding.
        Raises ConflictError when it does not load on this replica, or UnknownNameError when the registry has no such
        half; then nobody else has been asked."""
        time = LoadTime.of(self._timeout_s, caller_s)
        own, handle = await self._on_this_replica(model, binding_digest, time)
        return [own, *await self._on_the_others(model, time)], handle

    async def _on_this_replica(
        self, model: ModelId, binding_digest: str, time: LoadTime
    ) -> tuple[ReplicaOutcome, ModelHandle]:
        known = self._pool.find(model)
        if known is None:
            await _in_time(self._reconciler.check_there(model), model, time)
        self._asked.append(model)
        if known is None:
            self.follow(again={model})
        try:
            handle = await _in_time(self._reconciler.loaded(model), model, time)
            if binding_digest:
                handle.check_binding(binding_digest)
            if model not in bindings.wanted_models(self._wanted.state) or self._replicas.failed(model):
                await self._wanted.change(lambda state: bindings.with_model(state, model))
                logger.info("%s is to be kept loaded", model)
        finally:
            # What was not acknowledged is not wanted either.
            self._asked.remove(model)
            self.follow()
        state = LoadState.LOADED if known is None else LoadState.ALREADY_LOADED
        return ReplicaOutcome(self._replicas.party, self._replicas.name, state), handle

    async def _on_the_others(self, model: ModelId, time: LoadTime) -> list[ReplicaOutcome]:
        return await self._replicas.load(model, self._wanted.state.revision, time)

    async def _at(self, host: str, handle: ModelHandle, time: LoadTime) -> list[ReplicaOutcome]:
        peer = self._peers.get(host)
        if peer is None:
            return [ReplicaOutcome(host, "", LoadState.FAILED, no_address(host))]
        try:
            return await peer.load(handle.id, handle.artifact.binding_digest, time.left_s)
        except PeerError as error:
            return [ReplicaOutcome(host, "", LoadState.FAILED, str(error))]


async def _in_time(work: Awaitable[T], model: ModelId, time: LoadTime) -> T:
    """Raises ConflictError when it takes longer."""
    try:
        async with asyncio.timeout_at(time.ends):
            return await work
    except TimeoutError:
        raise ConflictError(time.late(str(model))) from None
