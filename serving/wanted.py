"""The wanted state in use: durable changes, one at a time, and the routes that follow from them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from apps.catalog import make_app
from serving import bindings
from serving.app_shelf import AppShelf
from serving.control import ControlStore, InDoubtError, State
from serving.errors import ConflictError, NotKeptError
from serving.pool import ModelId
from serving.routing import RouteTable
from serving.uninterrupted import to_the_end

logger = logging.getLogger(__name__)


class Wanted:
    """Edits of the state, kept in `store`. Requests see a change only after it is durable. `apps` makes those that
    bindings name."""

    def __init__(self, store: ControlStore, apps: AppShelf | None = None) -> None:
        self._store = store
        self._apps = apps or AppShelf()
        self._watchers: list[Callable[[State], None]] = []
        self._epochs: Mapping[ModelId, int] = {}
        explicit = make_app("passthrough")
        self.routes = RouteTable(bindings.routes(store.read(), explicit, self._apps.make_or_absent))

    @property
    def state(self) -> State:
        return self._store.read()

    def models(self) -> tuple[set[ModelId], set[ModelId]]:
        """What is wanted, and what of it has been asked for since the last call: where it FAILED before, it is to be
        tried again."""
        before, self._epochs = self._epochs, bindings.epochs(self._store.read())
        return set(self._epochs), {id_ for id_, epoch in self._epochs.items() if epoch != before.get(id_)}

    async def change(self, edit: Callable[[State], State]) -> State:
        """Make one edit durable, then let requests see it. `edit` may refuse by raising; it runs again on the newer
        state when another change came in between. Raises NotKeptError when the store does not take it. A change is made
        and seen whole, whether or not the caller waits for it."""
        return await to_the_end(self._change(edit))

    async def _change(self, edit: Callable[[State], State]) -> State:
        while True:
            state = self._store.read()
            edited = edit(state)
            try:
                stored = await asyncio.to_thread(self._store.compare_and_set, state.revision, edited)
            except ConflictError:
                continue  # overtaken; the store knows the newer state now
            except OSError as error:
                logger.error("a change is not kept: %s", error)
                reason = error.strerror or "the log says why"
                raise NotKeptError(f"the change is not kept: {reason}", isinstance(error, InDoubtError)) from error
            self.follow()
            return stored

    def follow(self) -> None:
        """Several changes may have been stored by now, by other replicas too: the newest is what requests must see."""
        state = self._store.read()
        explicit = self.routes.current.explicit_app
        self.routes.current = bindings.routes(state, explicit, self._apps.make_or_absent)
        for watcher in self._watchers:
            watcher(state)

    def watch(self, watcher: Callable[[State], None]) -> None:
        """Have it called with the state now and after every change, whoever made it."""
        self._watchers.append(watcher)
        watcher(self._store.read())
