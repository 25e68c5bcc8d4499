"""Makes a half of an export and stores it in a registry, bound by the names that FATE gives all parties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loaders.artifact import Manifest
from loaders.fate import FOLDER, STEP
from loaders.fate.compiling import compile_half
from loaders.fate.component import Site
from loaders.fate.export import Parts
from loaders.fate.names import FateName
from loaders.registry import bind, half_path, write_half


def half_of(parts: Parts, name: FateName, site: Site) -> tuple[Manifest, Mapping[str, bytes]]:
    """Manifest and files. Raises ExportError, and ComponentError for what cannot be served."""
    half = compile_half(parts, site)
    half.servable()
    manifest = Manifest(
        model=name.model,
        version=name.version,
        role=site.role,
        party=site.party,
        format="fate",
        inputs=half.inputs,
        outputs=(half.output,),
        preprocess=[{"kind": STEP, "mode": site.mode.value}],
        merge=half.merge,
        provenance={"fate": {"namespace": name.namespace, "table": name.table}},
        identity=name.ref(site.role, site.party).half_digest,
    )
    return manifest, {f"{FOLDER}{key}": raw for key, raw in parts.items()}


def store_half(root: Path, parts: Parts, name: FateName, site: Site, guest: str) -> None:
    """Slow. Raises ExportError and ComponentError, and ArtifactError when another half of that name is there."""
    manifest, files = half_of(parts, name, site)
    write_half(root, manifest, files)
    binding = [name.ref("guest", guest), *(name.ref("host", host) for host in site.hosts)]
    bind(half_path(root, manifest.model, manifest.version, site.role, site.party), binding)
