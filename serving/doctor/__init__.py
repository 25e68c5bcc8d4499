"""Looks a node over: settings, folders, ports, caches, clocks, models, peers. One finding a line, each with its cause.

Every check stands alone, so that one that fails hides none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from loaders.artifact import Artifact
from serving.control import FileControlStore, SnapshotError, State
from serving.doctor import local, parties
from serving.doctor.finding import Finding, Findings, Level
from serving.pool import ModelId
from serving.settings import Settings
from serving.transport import Channel

__all__ = ["Finding", "Level", "examine"]

Link = Callable[[str], Channel]
"""A channel to a party's port, as the node itself opens it."""


async def examine(settings: Settings, link: Link) -> Findings:
    """The node may run or not."""
    for finding in await asyncio.to_thread(lambda: list(local.folders(settings))):
        yield finding
    try:
        state = await asyncio.to_thread(_kept_state, Path(settings.state_dir))
    except SnapshotError as error:
        yield Finding(Level.ERROR, "state_dir", str(error))
        state = State()
    artifacts: dict[ModelId, Artifact] = {}
    async for finding in local.models(settings, state, artifacts):
        yield finding
    for check in (local.ports(settings), local.cache(settings), local.features(settings, artifacts)):
        async for finding in check:
            yield finding
    for party, peer in settings.peers.items():
        if peer.address:
            async for finding in parties.peer(party, link(party), parties.shared_with(party, artifacts)):
                yield finding


def _kept_state(folder: Path) -> State:
    return FileControlStore(folder).read() if folder.is_dir() else State()
