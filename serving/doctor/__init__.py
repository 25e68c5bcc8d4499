"""Looks a node over: settings, folders, ports, caches, clocks, models, peers. One finding a line, each with its cause.

Every check stands alone, so that one that fails hides none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from loaders.artifact import Artifact
from serving.control import FileControlStore, SnapshotError, State
from serving.doctor import local, parties, servers
from serving.doctor.certificates import certificates
from serving.doctor.collector import collector
from serving.doctor.finding import Finding, Findings, Level
from serving.pool import ModelId
from serving.security import own_credentials
from serving.settings import PeerProtocol, Settings
from serving.transport import Channel, ChannelOptions, CredentialsError, channel

__all__ = ["Finding", "Level", "examine"]


async def examine(settings: Settings) -> Findings:
    """The node may run or not."""
    for finding in await asyncio.to_thread(lambda: list(local.folders(settings))):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(certificates(settings))):
        yield finding
    try:
        state = await asyncio.to_thread(_kept_state, Path(settings.state_dir))
    except SnapshotError as error:
        yield Finding(Level.ERROR, "state_dir", str(error))
        state = State()
    artifacts: dict[ModelId, Artifact] = {}
    async for finding in local.models(settings, state, artifacts):
        yield finding
    for finding in local.fallbacks(settings, state, artifacts):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(local.apps(settings, state))):
        yield finding
    for check in (
        local.ports(settings),
        servers.cache(settings),
        servers.control(settings),
        collector(settings),
        local.features(settings, artifacts),
    ):
        async for finding in check:
            yield finding
    async for finding in _peers(settings, artifacts):
        yield finding


async def _peers(settings: Settings, artifacts: Mapping[ModelId, Artifact]) -> Findings:
    for party, peer in settings.peers.items():
        if not peer.address:
            continue
        if peer.protocol is PeerProtocol.FATE:
            yield Finding(Level.OK, f"peers.{party}", "speaks FATE's protocol: what it holds is not shown (unmanaged)")
            continue
        shared = parties.shared_with(party, artifacts)
        addresses = {f"peers.{party}": peer.address, f"peers.{party}.hedge_address": peer.hedge_address}
        for subject, address in addresses.items():
            if not address:
                continue
            try:
                link = await _link(settings, party, address)
            except CredentialsError as error:
                yield Finding(Level.ERROR, subject, str(error))
                continue
            async for finding in parties.peer(subject, link, shared, settings.tls_of("party") is not None):
                yield finding


async def _link(settings: Settings, party: str, address: str) -> Channel:
    """To a party's port, as the node itself opens it. Raises CredentialsError."""
    credentials = await asyncio.to_thread(own_credentials, settings, "party", party)
    return channel(settings.transport, address, ChannelOptions(credentials=credentials))


def _kept_state(folder: Path) -> State:
    return FileControlStore(folder).read() if folder.is_dir() else State()
