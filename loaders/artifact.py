"""The artifact on disk: manifest, digests, binding. The only code that knows the format.

A half lies in `<root>/<model>/<version>/<role>-<party>/` in its own party's registry: `manifest.json` and the files it
lists. It is immutable once bound. `half_digest` is the SHA-256 of the RFC 8785 JSON of the manifest without `binding`;
`binding_digest` is the SHA-256 of the RFC 8785 JSON of the binding, equal on all parties.

Where a publisher cannot tell the parties each other's digests (FATE), a manifest has an `identity`: the digest of what
every party knows of this half, its name at the publisher. The binding then names identities; the half's own digest
stands beside it as `sealed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from loaders.signature import TensorSpec

SCHEMA = "1.1"
"""The newest. A half says the oldest that knows all it says, so that what is stored again is the same half."""
MANIFEST = "manifest.json"


class ArtifactError(Exception):
    """An artifact is missing, corrupt, foreign or unbound; the text names the file and the reason."""


class MissingHalfError(ArtifactError):
    """The registry has no half of this version for this party."""


class MergeKind(Enum):
    """How the halves' outputs become one result: added, with products of the halves' factors, walked as trees, or a
    model without hosts."""

    SUM = "sum"
    FACTORS = "factors"
    TREE_WALK = "tree_walk"
    NONE = "none"


class Link(Enum):
    """From the merged linear value to the score."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"
    EXP = "exp"
    SOFTMAX = "softmax"


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """Credit points of a probability p: offset + factor / ln(factor_base) x ln((1 - p) / p), not below `lower_limit`
    nor above `upper_limit_ratio` x offset, to two decimals; a half goes to the even neighbour unless `half_up`."""

    offset: float = 500.0
    factor: float = 20.0
    factor_base: float = 2.0
    upper_limit_ratio: float = 3.0
    lower_limit: float = 0.0
    half_up: bool = False


class Merge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`points`: make credit points of the score. `labels`: names of the outputs; the largest one's is the answer's."""

    kind: MergeKind
    link: Link = Link.IDENTITY
    points: Points | None = None
    labels: tuple[str, ...] = ()


class FileEntry(msgspec.Struct, frozen=True):
    sha256: str
    bytes: int


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Synthetic rows, drawn from the inputs' ranges, and what the half must answer within `tolerance` (absolute).

    `numbers` (rows, number features) with None for missing; `outputs` by name, row-major, one list per row.
    """

    numbers: list[list[float | None]]
    texts: list[list[str | None]] = []
    outputs: dict[str, list[list[float]]]
    tolerance: float = 1e-9


class HalfRef(msgspec.Struct, frozen=True, order=True):
    """One entry of a binding; bindings are sorted."""

    role: str
    party: str
    half_digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `manifest.json` says. Unknown keys of a newer minor schema are kept in the file and in the digest.

    `stand_ins` (since 1.1; only with merge kind `sum`): by host, the mean of its partials over the training rows, one
    number per score. A host's half names that host alone, and only when the host lets its guest know; the guest's half
    names the hosts that let it. It is the one thing of another party that a manifest may hold.
    """

    schema: str = "1.0"
    model: str
    version: str
    role: str
    party: str
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: list[dict[str, Any]] = []
    merge: Merge
    app: str | None = None
    feature_max_age_s: float | None = None
    files: dict[str, FileEntry] = {}
    self_test: SelfTest | None = None
    provenance: dict[str, Any] = {}
    stand_ins: dict[str, list[float]] = {}
    identity: str | None = None
    binding: list[HalfRef] | None = None
    sealed: str | None = None


def oldest_schema(manifest: Manifest) -> str:
    """The oldest that knows all that a manifest says."""
    return "1.1" if manifest.stand_ins else "1.0"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A half whose manifest and files have been verified. Paths of files: `path / name` for names in the manifest."""

    path: Path
    manifest: Manifest
    half_digest: str
    binding_digest: str

    @property
    def files(self) -> Mapping[str, FileEntry]:
        return self.manifest.files


msgspec.json.Decoder(Manifest)
"""Once, here: msgspec prepares a type when it is first used, and two threads that do so at once may crash the
process."""
