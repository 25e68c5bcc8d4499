"""Holds: what a service's bindings need loaded at the hosts, and until when.

A guest takes holds at the hosts of its models and renews them at a third of their time; a host grants them, keeps them
in its wanted state, and refuses to unload what is held. Every publish has holds of its own: of two at once, at whatever
replicas, the one that fails releases nothing that the other one needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from serving.bindings import wanted_models
from serving.control import Hold, Service, State
from serving.errors import ConflictError, LimitError, PeerError
from serving.pool import ModelHandle, ModelId
from serving.wanted import Wanted

logger = logging.getLogger(__name__)

MAX_HOLDS = 1_000
"""Of one party here: more services and versions than it has."""
HOLD_TTL_S = 600
"""Seconds for which a guest asks; it renews at a third of that."""
RETRY_S = 30
"""When a host has refused: it may have lost the version for a moment, and people are told until it is held again."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a guest holds for: the binding of its service that `publish` makes or made, at this revision."""

    service: str
    revision: int
    publish: str

    @classmethod
    def of(cls, name: str, service: Service) -> Holder:
        return cls(name, service.revision, service.publish)


class Holds:
    """The holds that this party has granted. `clock` is Unix seconds."""

    def __init__(self, wanted: Wanted, clock: Callable[[], float] = time.time) -> None:
        self._wanted = wanted
        self._clock = clock
        self.expired = 0
        """That this replica found expired and forgot."""

    @property
    def granted(self) -> Sequence[Hold]:
        """What is held here, expired or not."""
        return self._wanted.state.holds

    def of(self, model: ModelId, state: State | None = None) -> list[Hold]:
        """Holds on a version that have not expired, in this state or the current one."""
        now_s = self._clock()
        holds = (state or self._wanted.state).holds
        return [hold for hold in holds if hold_model(hold) == model and hold.expires_s > now_s]

    def renews(self, hold: Hold) -> bool:
        """Whether it only prolongs one that is there, of the same revision."""
        return (_key(hold), hold.revision) in [(_key(one), one.revision) for one in self.of(hold_model(hold))]

    def has(self, hold: Hold) -> bool:
        """Whether it is there, of whatever revision."""
        return _key(hold) in map(_key, self.of(hold_model(hold)))

    async def grant(self, hold: Hold, replaces: str | None = None) -> None:
        """Keep or renew a hold; one per (party, service, publish, model, version). It takes the place of what the
        publish `replaces` holds of the same. Raises ConflictError when the version is not wanted here any more,
        LimitError for a party that holds as much as it may."""
        gone = [hold] if replaces is None else [hold, msgspec.structs.replace(hold, publish=replaces)]

        def with_hold(state: State) -> State:
            if hold_model(hold) not in wanted_models(state):
                raise ConflictError(f"{hold_model(hold)} is not loaded at this party")
            others = _without(state, gone)
            if [one.party for one in others].count(hold.party) >= MAX_HOLDS:
                raise LimitError(f"party {hold.party!r} has {MAX_HOLDS} holds here already; release some")
            return msgspec.structs.replace(state, holds=(*others, hold))

        await self._wanted.change(with_hold)

    async def release(self, hold: Hold) -> None:
        """Forget a hold; one that is not there is fine."""
        state = self._wanted.state
        if len(_without(state, [hold])) < len(state.holds):
            await self._wanted.change(lambda state: msgspec.structs.replace(state, holds=_without(state, [hold])))

    async def sweep(self) -> None:
        """Forget expired holds, loudly: a guest that did not renew may have lost its way here. Not so where the guest
        holds the version for another binding of the service."""
        now_s, gone = self._clock(), list[Hold]()

        def swept(state: State) -> State:
            kept = tuple(hold for hold in state.holds if hold.expires_s > now_s)
            held = set(map(_needed_for, kept))
            gone[:] = [hold for hold in state.holds if hold.expires_s <= now_s and _needed_for(hold) not in held]
            return msgspec.structs.replace(state, holds=kept)

        if any(hold.expires_s <= now_s for hold in self.granted):
            await self._wanted.change(swept)
        self.expired += len(gone)
        for hold in gone:
            logger.warning(
                "the hold of party %s on %s for its service %s has expired", hold.party, hold_model(hold), hold.service
            )


class HoldingPeer(Protocol):
    """A host, as a guest's holds need it. Both raise PeerError naming the party and the reason."""

    async def hold(
        self, holder: Holder, model: ModelId, binding_digest: str, ttl_s: int, replaces: str | None = None
    ) -> None: ...

    async def release(self, holder: Holder, model: ModelId) -> None: ...


class HostHolds:
    """The holds that this party, as guest, has at the hosts of its models. `peers` by party id."""

    def __init__(self, peers: Mapping[str, HoldingPeer]) -> None:
        self._peers = peers
        self.refused = 0
        """Renewals that a host did not grant, or did not answer."""
        self.lacking: dict[str, tuple[str, ...]] = {}
        """By service, which version is not held at which host, and why, since it was renewed last."""

    async def take(self, holder: Holder, handles: Iterable[ModelHandle]) -> None:
        """Have every host keep these versions. Raises ConflictError with every party that refused, and why."""
        refusals = [text for text in await self.refusals(holder, handles) if text]
        if refusals:
            raise ConflictError(f"not ready at every party: {'; '.join(refusals)}")

    async def refusals(self, holder: Holder, handles: Iterable[ModelHandle], replaces: str | None = None) -> list[str]:
        """Take or renew every hold; one text per hold, empty when it was granted."""
        return await asyncio.gather(
            *(self._take(host, holder, handle, replaces) for handle in handles for host in handle.hosts)
        )

    async def renew(self, holder: Holder, handles: Iterable[ModelHandle], replaces: str | None = None) -> None:
        """Prolong every hold, or take it in place of what the publish `replaces` holds. What is refused is lacking, and
        logged once: the hold that is there will expire."""
        refusals = tuple(filter(None, await self.refusals(holder, handles, replaces)))
        self.refused += len(refusals)
        known = self.lacking.pop(holder.service, ())
        if refusals:
            self.lacking[holder.service] = refusals
        for text in refusals:
            if text not in known:
                logger.warning("a hold could not be renewed, it will expire: %s", text)

    def forget_others(self, services: Container[str]) -> None:
        """What is lacking for services that are not there any more does not matter."""
        self.lacking = {name: texts for name, texts in self.lacking.items() if name in services}

    async def release(self, holder: Holder, handles: Iterable[ModelHandle]) -> None:
        """Let the hosts drop these versions. A host that does not hear it waits for the hold to expire."""
        await asyncio.gather(*(self._release(host, holder, handle) for handle in handles for host in handle.hosts))

    async def _take(self, host: str, holder: Holder, handle: ModelHandle, replaces: str | None) -> str:
        peer = self._peers.get(host)
        if peer is None:
            return f"{handle.id} at {no_address(host)}"
        try:
            await peer.hold(holder, handle.id, handle.artifact.binding_digest, HOLD_TTL_S, replaces)
        except PeerError as error:
            return f"{handle.id} at {error}"
        return ""

    async def _release(self, host: str, holder: Holder, handle: ModelHandle) -> None:
        peer = self._peers.get(host)
        if peer is None:
            return
        try:
            await peer.release(holder, handle.id)
        except PeerError as error:
            logger.warning("the hold on %s for service %s stays until it expires: %s", handle.id, holder.service, error)


class HoldUpkeep:
    """Runs `pass_` at once and then at every third of a hold's time, or sooner when it says that something is lacking,
    until stopped. `pause` waits for seconds."""

    def __init__(
        self, pass_: Callable[[], Awaitable[bool]], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._pass = pass_
        self._pause = pause
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep(self) -> None:
        while True:
            pause_s = HOLD_TTL_S / 3
            try:
                if await self._pass():
                    pause_s = RETRY_S
            except Exception:
                logger.exception("the upkeep of holds failed; it is tried again")
            await self._pause(pause_s)


def no_address(party: str) -> str:
    return f"party {party!r}: it has no address in this node's settings (peers.{party}.address)"


def hold_model(hold: Hold) -> ModelId:
    return ModelId(hold.model, hold.version)


def _needed_for(hold: Hold) -> tuple[str, str, str, str]:
    return (hold.party, hold.service, hold.model, hold.version)


def _key(hold: Hold) -> tuple[str, ...]:
    return (*_needed_for(hold), hold.publish)


def _without(state: State, gone: Sequence[Hold]) -> tuple[Hold, ...]:
    keys = set(map(_key, gone))
    return tuple(one for one in state.holds if _key(one) not in keys)
