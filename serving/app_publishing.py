"""Apps at one party: load a version on all its replicas, unload it, choose one for a binding. As models, without hosts:
an app runs at the guest alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Set
from dataclasses import dataclass

from apps.catalog import names
from loaders.signature import Signature
from serving import bindings
from serving.app_shelf import AppId, AppLife, AppShelf
from serving.control import State, WantedApp
from serving.errors import ConflictError, UnknownNameError
from serving.lifecycle import LoadState, ModelState, ReplicaOutcome
from serving.load_time import LoadTime
from serving.replicas import FOLLOW_S, Replicas
from serving.reports import ReplicaModel
from serving.wanted import Wanted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppStatus:
    """One app that is not built in, for people. `used_by` names services whose current or previous binding names it."""

    life: AppLife
    used_by: tuple[str, ...]


class AppPublishing:
    """`load_timeout_s` bounds a load on all replicas."""

    def __init__(self, wanted: Wanted, shelf: AppShelf, replicas: Replicas, load_timeout_s: float) -> None:
        self._wanted = wanted
        self._shelf = shelf
        self._replicas = replicas
        self._load_timeout_s = load_timeout_s
        self._asked: list[AppId] = []
        shelf.watch(wanted.follow)

    def follow(self, again: Set[AppId] = frozenset()) -> None:
        """Want what the state wants, and what loads are being asked for right now."""
        asked = {app: WantedApp(name=app.name, version=app.version, digest="", epoch=0) for app in self._asked}
        self._shelf.apply({**asked, **bindings.wanted_apps(self._wanted.state)}, again)

    def reported(self) -> dict[str, ReplicaModel]:
        lives = self._shelf.lives.items()
        return {str(id_): ReplicaModel(life.state.value, life.reason, life.digest) for id_, life in lives}

    def statuses(self) -> list[AppStatus]:
        state = self._wanted.state
        return [
            AppStatus(life, tuple(bindings.users_of_app(state, str(id_))))
            for id_, life in sorted(self._shelf.lives.items())
        ]

    async def load(self, app: AppId, caller_s: float | None = None) -> tuple[list[ReplicaOutcome], str]:
        """Load it here, then on the other replicas, against one deadline; no answer changes by that. Returns an outcome
        per replica and the digest (hex). Raises UnknownNameError, NotAllowedError, or ConflictError with the reason."""
        if app.name in await asyncio.to_thread(names):
            raise ConflictError(f"app {app.name!r} is built in; give yours another name")
        time = LoadTime.of(self._load_timeout_s, caller_s)
        known = self._shelf.lives.get(app)
        self._asked.append(app)
        self.follow(again={app})
        try:
            async with asyncio.timeout_at(time.ends):
                life = await self._shelf.loaded(app)
            state = await self._wanted.change(lambda state: bindings.with_app(state, app, life.digest))
            logger.info("app %s is to be kept loaded", app)
        except TimeoutError:
            raise ConflictError(time.late(f"app {app}")) from None
        finally:
            self._asked.remove(app)
            self.follow()
        others = await self._replicas.load_app(str(app), state.revision, time)
        was_there = known is not None and known.state is ModelState.READY
        own = ReplicaOutcome(
            self._replicas.party, self._replicas.name, LoadState.ALREADY_LOADED if was_there else LoadState.LOADED
        )
        return [own, *others], life.digest

    async def unload(self, app: AppId) -> None:
        """Let go of it on all replicas. Raises ConflictError naming the services that need it."""

        def without(state: State) -> State:
            if app not in bindings.wanted_apps(state):
                raise UnknownNameError(f"app {app} is not loaded at this party")
            if users := bindings.users_of_app(state, str(app)):
                raise ConflictError(f"app {app} is needed by {', '.join(users)}")
            return bindings.without_app(state, app)

        await self._wanted.change(without)
        logger.info("app %s is to be unloaded", app)
        self.follow()

    async def choose(self, app: str, parameters: str, signatures: Iterable[Signature]) -> str:
        """What a binding says for `app` or `app:version`, once every replica has it: of a name, the version that was
        loaded last. Raises InvalidRequestError when there is none or it does not go with these models."""
        chosen = await asyncio.to_thread(self._chosen, app, parameters, signatures)
        await self.require(chosen)
        return chosen

    async def require(self, app: str) -> None:
        """Raises ConflictError unless every replica has it."""
        if ":" not in app:
            return
        life = self._shelf.lives.get(AppId(*app.split(":")))
        if life is None or life.state is not ModelState.READY:
            raise ConflictError(f"app {app} is not loaded at this party" + (f": {life.reason}" if life else ""))
        await self._replicas.require_app(app, life.digest, FOLLOW_S)

    def _chosen(self, app: str, parameters: str, signatures: Iterable[Signature]) -> str:
        chosen = app
        if ":" not in app and app not in names():
            chosen = bindings.newest_app(self._wanted.state, app)
        bindings.check_app(chosen, parameters, signatures, self._shelf.make)
        return chosen
