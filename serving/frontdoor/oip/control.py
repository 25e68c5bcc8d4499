"""Model control of the protocol: what is loaded, load, unload. The errors say "failed to load", as clients expect."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from loaders.artifact import ArtifactError, MissingHalfError
from loaders.registry import newest_version
from serving.errors import InvalidRequestError, TesseraError, public
from serving.frontdoor.oip.models import Models
from serving.lifecycle import LoadState, ModelState
from serving.pool import ModelId
from serving.publishing import Publishing
from serving.transport import Code

VERSION = "version"
STATES = {
    ModelState.READY: "READY",
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

    def index(self, ready_only: bool) -> list[IndexEntry]:
        entries = [
            IndexEntry(
                status.life.model.model,
                status.life.model.version,
                STATES.get(status.life.state, "UNAVAILABLE"),
                status.life.reason,
            )
            for status in self.publishing.models()
        ]
        return [entry for entry in entries if entry.state == "READY" or not ready_only]

    async def load(self, name: str, parameters: dict[str, str], given: Collection[str]) -> None:
        """The newest version, or the one in parameter `version`. Raises RefusedLoadError saying which party and why."""
        foreign = sorted(set(given) - {VERSION})
        if foreign:
            raise InvalidRequestError(f"load parameter {foreign[0]!r} is refused: models come from the registry alone")
        try:
            version = parameters.get(VERSION, "") or await asyncio.to_thread(newest_version, self.registry, name)
            outcomes, _ = await self.publishing.load(ModelId(name, version))
        except (TesseraError, ArtifactError) as error:
            raise _refused(name, error) from error
        wrong = [f"party {one.party!r}: {one.reason}" for one in outcomes if one.state is LoadState.FAILED]
        if wrong:
            raise RefusedLoadError(f"failed to load {name!r}: {'; '.join(wrong)}")

    async def unload(self, name: str) -> None:
        """Every version. Raises ConflictError when a service or another party needs one, UnknownNameError."""
        self.models.find(name, "")
        for status in self.publishing.models():
            if status.life.model.model == name and status.handle is not None:
                await self.publishing.unload(status.life.model)


def _refused(name: str, error: Exception) -> TesseraError:
    code, reason = public(error)
    refused = RefusedLoadError(f"failed to load {name!r}: {reason}")
    refused.code = Code.NOT_FOUND if isinstance(error, MissingHalfError) else code
    return refused
