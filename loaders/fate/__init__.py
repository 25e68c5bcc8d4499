"""Format `fate`: halves exported by FATE 1.x, with their whole pipeline, compiled into the servables of other formats.

Files: the parts of the export, `parts/<component>/<alias>/<Message>`. The one preprocess step `{"kind": "fate", "mode":
"strict_offline" | "serving_compat"}` says whose numbers count.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from loaders.artifact import Artifact
from loaders.fate.compiling import CompiledHalf, compile_half
from loaders.fate.component import ComponentError, Mode, Site
from loaders.fate.export import ExportError, Parts
from loaders.loader import Loader, LoadError, Servable
from loaders.signature import TensorSpec

FOLDER = "parts/"
STEP = "fate"


class FateLoader(Loader):
    """One party's half of a FATE pipeline."""

    format: ClassVar[str] = "fate"

    def estimate(self) -> int:
        return 4 * sum(entry.bytes for entry in self.artifact.files.values())

    def load(self) -> Servable:
        try:
            half = compile_half(parts_of(self.artifact), site_of(self.artifact))
            servable = half.servable()
        except (ExportError, ComponentError) as error:
            raise LoadError(str(error)) from None
        self._compare(half)
        return servable

    def _compare(self, half: CompiledHalf) -> None:
        """The manifest declares what was compiled, or callers would be told of other features and scores."""
        manifest = self.artifact.manifest
        if _unspelled(manifest.inputs) != _unspelled(half.inputs) or manifest.outputs != (half.output,):
            raise LoadError(
                "the manifest declares other inputs or outputs than its parts have; import the export again"
            )
        if manifest.merge != half.merge:
            raise LoadError("the manifest declares another merge than its parts have; import the export again")


def _unspelled(inputs: tuple[TensorSpec, ...]) -> list[TensorSpec]:
    return [msgspec.structs.replace(spec, spellings={}) for spec in inputs]


def parts_of(artifact: Artifact) -> Parts:
    """The parts as they were exported. Reads files."""
    names = [name for name in artifact.files if name.startswith(FOLDER)]
    return {name.removeprefix(FOLDER): (artifact.path / name).read_bytes() for name in names}


def site_of(artifact: Artifact) -> Site:
    """Raises LoadError for a manifest that does not say whose numbers count."""
    manifest = artifact.manifest
    hosts = tuple(half.party for half in manifest.binding or () if half.role == "host")
    steps = [step for step in manifest.preprocess if step.keys() == {"kind", "mode"} and step["kind"] == STEP]
    if len(steps) != 1 or len(manifest.preprocess) != 1 or steps[0]["mode"] not in {mode.value for mode in Mode}:
        raise LoadError('preprocess must be one step {"kind": "fate", "mode": "strict_offline" or "serving_compat"}')
    return Site(manifest.role, manifest.party, hosts, Mode(steps[0]["mode"]))
