"""Services with policy `partial` whose models declare no mean partial of some host: there it is policy `fail`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from loaders.artifact import Manifest
from serving import bindings
from serving.control import State
from serving.peers.fallback import Fallbacks
from serving.pool import ModelId, ModelPool
from serving.settings import FallbackPolicy

logger = logging.getLogger(__name__)


def undeclared(
    state: State, fallbacks: Fallbacks, manifest_of: Callable[[ModelId], Manifest | None]
) -> Iterator[tuple[str, str]]:
    """Service and what to say of it. `manifest_of`: None for a version that is not there."""
    for name, service in state.services.items():
        if fallbacks.of(name).policy is not FallbackPolicy.PARTIAL:
            continue
        for model in map(bindings.variant_model, service.current.variants):
            manifest = manifest_of(model)
            lacking = _lacking(manifest) if manifest is not None else []
            if lacking:
                parties = ", ".join(map(repr, lacking))
                yield name, f"policy partial is fail for {model}: its artifact declares no mean partial of {parties}"


class UndeclaredLog:
    """Says so in the log, once for each service and version."""

    def __init__(self, fallbacks: Fallbacks, pool: ModelPool) -> None:
        self._fallbacks = fallbacks
        self._pool = pool
        self._said: set[tuple[str, str]] = set()

    def look(self, state: State) -> None:
        found = set(undeclared(state, self._fallbacks, self._manifest_of))
        for service, text in sorted(found - self._said):
            logger.warning("service %s: %s", service, text)
        self._said = found

    def _manifest_of(self, model: ModelId) -> Manifest | None:
        handle = self._pool.find(model)
        return None if handle is None else handle.artifact.manifest


def _lacking(manifest: Manifest) -> list[str]:
    hosts = [half.party for half in manifest.binding or () if half.role == "host"]
    return [host for host in hosts if host not in manifest.stand_ins]
