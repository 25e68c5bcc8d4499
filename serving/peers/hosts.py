"""The other parties of a model, as the pipeline asks them: the contract of what collects their partials."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from serving.peers.partials import HostPartials, Lookup
from serving.pool import ModelHandle
from serving.transport.promise import Promise


class Hosts(Protocol):
    """Collects the partials of other parties; never raises for what a party does. `deadline` is loop time."""

    def look(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> Lookup:
        """What is at hand without waiting."""

    async def find(self, lookup: Lookup) -> None:
        """Add what other replicas know."""

    async def ask(self, lookup: Lookup, deadline: float) -> None:
        """Ask the party for the rest; afterwards nothing is missing."""

    async def ask_aside(self, lookup: Lookup, deadline: float) -> None:
        """The same for a version that answers nobody; no answer ever waits for it."""

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        """What was kept, fresh or not; nobody is asked."""


async def all_of(steps: Sequence[Coroutine[Any, Any, None]]) -> None:
    """At the same time; each begins at once."""
    if len(steps) == 1:
        await steps[0]
        return
    running = [Promise.of(step) for step in steps]
    try:
        for one in running:
            await one
    finally:
        for one in running:
            one.cancel()
