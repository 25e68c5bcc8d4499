"""Makes the wanted models the loaded ones, beside the apps, which see to themselves. Loading runs on threads, never on
the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from pathlib import Path

from loaders.artifact import ArtifactError, MissingHalfError
from loaders.catalog import load_servable, loader_for
from loaders.cost import measured
from loaders.loader import Loader, LoadError
from loaders.merge import merge_rule
from loaders.registry import find_half, open_half
from loaders.remote import RemoteRegistry
from serving.app_shelf import AppShelf
from serving.errors import ConflictError, LimitError, UnknownNameError
from serving.lifecycle import Lifecycle, ModelState, advance
from serving.policy import Step, decide
from serving.pool import ModelHandle, ModelId, ModelPool

logger = logging.getLogger(__name__)

REFUSALS = (ArtifactError, LoadError, LimitError, OSError)
"""What a load may end with; anything else is a defect and says so in the log."""


MakeRoom = Callable[[ModelId, int], Awaitable[bool]]
"""Lets models go so that this one finds so many bytes that it lacks; tells whether that changed anything."""

GONE = {ModelState.FAILED, ModelState.UNLOADED}
MAX_GONE = 100


class Reconciler:
    """One task per model that is changing; models that are settled have none. `clock` is Unix seconds."""

    def __init__(
        self,
        registry: Path,
        party: str,
        pool: ModelPool,
        clock: Callable[[], float] = time.time,
        apps: AppShelf | None = None,
    ) -> None:
        self.apps = apps or AppShelf()
        self.remote: RemoteRegistry | None = None
        """Where halves come from that the registry lacks."""
        self.make_room: MakeRoom = _nobody_goes
        """Who decides it; the wanted state must follow, or what goes would come back."""
        self._registry = registry
        self._party = party
        self._pool = pool
        self._clock = clock
        self._wanted: Set[ModelId] = frozenset()
        self._lives: dict[ModelId, Lifecycle] = {}
        self._loaders: dict[ModelId, Loader] = {}
        self._tasks: dict[ModelId, asyncio.Task[None]] = {}

    @property
    def lives(self) -> Mapping[ModelId, Lifecycle]:
        """Every model seen since the start, with its state."""
        return self._lives

    def apply(self, wanted: Iterable[ModelId], again: Set[ModelId] = frozenset()) -> None:
        """Declare the wanted set; work starts in the background. `again`: models to retry although they failed."""
        self._wanted = frozenset(wanted)
        self._forget_oldest()
        self._start(again)

    async def check_there(self, model: ModelId) -> None:
        """Raises UnknownNameError when this party's registry has no half of the model."""
        try:
            await asyncio.to_thread(self._find, model)
        except MissingHalfError as error:
            raise UnknownNameError(str(error)) from None

    async def settled(self, model: ModelId) -> Lifecycle:
        """The model's state once nothing is changing it. A caller that goes away changes nothing."""
        while model in self._tasks:
            await asyncio.shield(self._tasks[model])
        return self._lives.get(model) or Lifecycle(model, ModelState.NEW, self._clock())

    async def loaded(self, model: ModelId) -> ModelHandle:
        """The handle of a wanted model once it is READY. Raises ConflictError with the reason it is not."""
        life = await self.settled(model)
        handle = self._pool.find(model)
        if handle is None:
            raise ConflictError(life.reason or f"model {model} is {life.state.name}")
        return handle

    def forget(self, model: ModelId) -> None:
        """Stop listing a model that is neither loaded nor changing."""
        if model not in self._tasks and self._pool.find(model) is None:
            self._lives.pop(model, None)

    def _forget_oldest(self) -> None:
        """Names that never loaded, or are gone, are kept for people to see, but not without bound."""
        gone = [life for life in self._lives.values() if life.state in GONE and life.model not in self._wanted]
        for life in sorted(gone, key=lambda life: life.since_s)[:-MAX_GONE]:
            self.forget(life.model)

    async def all_settled(self) -> None:
        """Returns when every wanted model and app is READY or known not to load."""
        await self.apps.settled()
        for model in sorted(self._wanted):
            await self.settled(model)

    async def stop(self) -> None:
        """Wait for what is under way, then let everything go."""
        for model in list(self._tasks):
            await self.settled(model)
        self.apply(())
        for model in list(self._tasks):
            await self.settled(model)
        await self.apps.stop()

    def _start(self, again: Set[ModelId]) -> None:
        states = {model: life.state for model, life in self._lives.items()}
        for action in decide(self._wanted, states, again):
            work = self._load if action.step is Step.LOAD else self._unload
            # The state changes before the task runs, so that one model never has two.
            self._enter(action.model, ModelState.LOADING if action.step is Step.LOAD else ModelState.DRAINING)
            self._tasks[action.model] = asyncio.create_task(self._settle(action.model, work))

    async def _settle(self, model: ModelId, work: Callable[[ModelId], Awaitable[None]]) -> None:
        try:
            await work(model)
        finally:
            del self._tasks[model]
        self._start(frozenset())

    async def _load(self, model: ModelId) -> None:
        try:
            loader = await asyncio.to_thread(self._open, model)
            await self._room(model, loader.estimate())
            with self._pool.reserve(model, loader.estimate()):
                servable = await asyncio.to_thread(load_servable, loader)
                rule = merge_rule(loader.artifact.manifest.merge, servable)
                cost = await asyncio.to_thread(measured, servable)
                self._pool.put(ModelHandle(loader.artifact, servable, rule, loader.estimate(), cost))
        except REFUSALS as error:
            logger.warning("model %s does not load: %s", model, error)
            self._enter(model, ModelState.FAILED, public_reason(error))
        except Exception:
            logger.exception("model %s does not load", model)
            self._enter(model, ModelState.FAILED, f"loading {model} failed unexpectedly; this party's log says why")
        else:
            self._loaders[model] = loader
            self._enter(model, ModelState.READY)
            logger.info("model %s is ready", model)

    async def _room(self, model: ModelId, bytes_: int) -> None:
        """Returns when there is room for it or nothing can be done for that."""
        while (lacking := self._pool.lacking(bytes_)) > 0:
            states = ((one, life.state) for one, life in self._lives.items())
            going = {self._tasks[one] for one, state in states if state is ModelState.DRAINING and one in self._tasks}
            if going:
                await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            elif not await self.make_room(model, lacking):
                return

    def _open(self, model: ModelId) -> Loader:
        if self.remote is not None:
            return loader_for(self.remote.open(model.model, model.version, self._party))
        return loader_for(open_half(self._registry, model.model, model.version, self._party))

    def _find(self, model: ModelId) -> None:
        if self.remote is not None:
            self.remote.check(model.model, model.version, self._party)
        else:
            find_half(self._registry, model.model, model.version, self._party)

    def in_use(self) -> set[tuple[str, str]]:
        """What is loaded, loading or draining."""
        lives = list(self._lives.values())
        return {(life.model.model, life.model.version) for life in lives if life.state not in GONE}

    async def _unload(self, model: ModelId) -> None:
        await self._pool.remove(model)
        loader = self._loaders.pop(model, None)
        if loader is not None:
            await asyncio.to_thread(loader.unload)
        self._enter(model, ModelState.UNLOADED)
        logger.info("model %s is unloaded", model)

    def _enter(self, model: ModelId, state: ModelState, reason: str = "") -> None:
        current = self._lives.get(model) or Lifecycle(model, ModelState.NEW, self._clock())
        self._lives[model] = advance(current, state, self._clock(), reason)


async def _nobody_goes(model: ModelId, lacking: int) -> bool:
    return False


def public_reason(error: Exception) -> str:
    """Texts of our own errors are public; those of the system may name paths."""
    return (
        f"{error.strerror or 'input/output error'} while reading the artifact"
        if isinstance(error, OSError)
        else str(error)
    )
