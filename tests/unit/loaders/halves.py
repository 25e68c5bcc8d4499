"""Loads halves that a test describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from loaders.artifact import HalfRef, Manifest
from loaders.catalog import load_servable, loader_for
from loaders.loader import Servable
from loaders.registry import bind, half_path, open_half, write_half


def load(root: Path, manifest: Manifest, files: Mapping[str, bytes], **changes: Any) -> Servable:
    """Write, bind, open and load a half, as serving does."""
    manifest = msgspec.structs.replace(manifest, **changes)
    digest = write_half(root, manifest, files)
    bind(
        half_path(root, manifest.model, manifest.version, manifest.role, manifest.party),
        [HalfRef(manifest.role, manifest.party, digest)],
    )
    return load_servable(loader_for(open_half(root, manifest.model, manifest.version, manifest.party)))
