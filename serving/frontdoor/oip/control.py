"""Model control of the protocol: what is loaded, load, unload. The errors say "failed to load", as clients expect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from loaders.artifact import ArtifactError, MissingHalfError
from loaders.registry import newest_version, stored
from serving.errors import ConflictError, InvalidRequestError, TesseraError, public
from serving.frontdoor.oip.models import UNLOADED, Models
from serving.lifecycle import LoadState, ModelState
from serving.pool import ModelId
from serving.publishing import Publishing
from serving.transport import Code

VERSION = "version"
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
STATES = {
    ModelState.READY: READY,
    ModelState.LOADING: "LOADING",
    ModelState.DRAINING: "UNLOADING",
}
"""UNAVAILABLE for the rest."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    name: str
    version: str
    state: str
    reason: str


class RefusedLoadError(TesseraError):
    """A load that this node or another party could not do."""

    code = Code.FAILED_PRECONDITION


@dataclass(frozen=True, slots=True)
class Repository:
    """This party's registry through the protocol's eyes. Loading a model loads its halves at every party; it puts
    nothing online."""

    publishing: Publishing
    models: Models
    registry: Path
    party: str

    async def index(self, ready_only: bool) -> list[IndexEntry]:
        """Services by their versions, then models that are loaded or were to be, then what else the registry holds."""
        entries = [*self._services(), *self._models()]
        if not ready_only:
            entries += [IndexEntry(*one, UNAVAILABLE, UNLOADED) for one in await asyncio.to_thread(self._stored)]
        found: dict[tuple[str, str], IndexEntry] = {}
        for entry in entries:
            found.setdefault((entry.name, entry.version), entry)
        return [entry for entry in found.values() if entry.state == READY or not ready_only]

    def _services(self) -> Iterator[IndexEntry]:
        for name, version, lacking in self.models.versions_of_services():
            yield IndexEntry(name, version, UNAVAILABLE if lacking else READY, lacking)

    def _models(self) -> Iterator[IndexEntry]:
        for status in self.publishing.models():
            life = status.life
            yield IndexEntry(life.model.model, life.model.version, STATES.get(life.state, UNAVAILABLE), life.reason)

    def _stored(self) -> list[tuple[str, str]]:
        return stored(self.registry, self.party)

    def states(self, name: str) -> dict[str, str]:
        """Of every version of a model that is loaded or was to be."""
        lives = [status.life for status in self.publishing.models()]
        return {life.model.version: life.state.value for life in lives if life.model.model == name}

    async def load(self, name: str, parameters: Mapping[str, object]) -> None:
        """The newest version, or the one in parameter `version`, a text or a whole number. Raises RefusedLoadError
        saying which party and why."""
        foreign = sorted(set(parameters) - {VERSION})
        if foreign:
            raise InvalidRequestError(f"load parameter {foreign[0]!r} is refused: models come from the registry alone")
        asked = _version_in(parameters)
        try:
            version = asked or await asyncio.to_thread(newest_version, self.registry, name)
            outcomes, _ = await self.publishing.load(ModelId(name, version))
        except (TesseraError, ArtifactError) as error:
            raise _refused(name, error) from error
        wrong = [f"party {one.party!r}: {one.reason}" for one in outcomes if one.state is LoadState.FAILED]
        if wrong:
            raise RefusedLoadError(f"failed to load {name!r}: {'; '.join(wrong)}")

    async def unload(self, name: str) -> None:
        """Every version. Raises ConflictError when a service or another party needs one, or when only a service has
        this name, and UnknownNameError."""
        self.models.find(name, "")
        loaded = [
            status.life.model
            for status in self.publishing.models()
            if status.life.model.model == name and status.handle is not None
        ]
        if not loaded:
            raise ConflictError(f"failed to unload {name!r}: it is a service; unload the versions that it leads to")
        for model in loaded:
            await self.publishing.unload(model)


def _version_in(parameters: Mapping[str, object]) -> str:
    version = parameters.get(VERSION, "")
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise InvalidRequestError(f"load parameter {VERSION!r} is a text or a whole number")
    return str(version)


def _refused(name: str, error: Exception) -> TesseraError:
    code, reason = public(error)
    refused = RefusedLoadError(f"failed to load {name!r}: {reason}")
    refused.code = Code.NOT_FOUND if isinstance(error, MissingHalfError) else code
    return refused
