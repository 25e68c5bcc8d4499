"""One small model in the registries of any number of parties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from loaders.artifact import HalfRef
from loaders.registry import bind, half_path, write_half
from serving.pool import ModelId
from tests.artifacts import linear_half


def publish(
    registries: Mapping[str, Path], model: ModelId, guest: str = "bank", weight: float = 0.5, app: str | None = None
) -> str:
    """A half with the input `x` in every registry, by party; `guest`'s is the guest's. Returns the binding digest."""
    refs, paths = [], []
    for party, root in registries.items():
        role = "guest" if party == guest else "host"
        half, files = linear_half(model.model, model.version, role, party, {"x": weight})
        refs.append(HalfRef(role, party, write_half(root, msgspec.structs.replace(half, app=app), files)))
        paths.append(half_path(root, model.model, model.version, role, party))
    [digest] = {bind(path, refs) for path in paths}
    return digest
