"""Makes an unbound half of an export: what a registry stores and this format loads."""

from __future__ import annotations

from collections.abc import Mapping

from loaders.artifact import Manifest
from loaders.fate import FOLDER, STEP
from loaders.fate.compiling import compile_half
from loaders.fate.component import Site
from loaders.fate.export import Parts


def half_of(parts: Parts, model: str, version: str, site: Site) -> tuple[Manifest, Mapping[str, bytes]]:
    """Manifest and files. Raises ExportError, and ComponentError for what cannot be served."""
    half = compile_half(parts, site)
    half.servable()
    manifest = Manifest(
        model=model,
        version=version,
        role=site.role,
        party=site.party,
        format="fate",
        inputs=half.inputs,
        outputs=(half.output,),
        preprocess=[{"kind": STEP, "mode": site.mode.value}],
        merge=half.merge,
    )
    return manifest, {f"{FOLDER}{name}": raw for name, raw in parts.items()}
