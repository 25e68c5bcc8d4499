"""A host's half as FATE-Serving's guests read its answers: by the name of its component, tree by tree, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loaders.artifact import Artifact, MergeKind
from loaders.fate import parts_of, site_of
from loaders.fate.boosting import Boosting
from loaders.fate.compiling import compile_half
from loaders.fate.export import Parts
from loaders.loader import Partial, PartialForm, PartialSpec
from loaders.servables.forest import GUEST
from tessera.compat import fate_model_pb2 as wire


class PartnerError(ValueError):
    """A half whose answers FATE-Serving's guests cannot read; the text says why."""


@dataclass(frozen=True, slots=True)
class PartnerHalf:
    """`component`: the name under which a guest looks for the payload; `nodes` (tree, node): of the bits, in order."""

    component: str
    kind: MergeKind
    spec: PartialSpec
    trees: int = 0
    nodes: Sequence[tuple[int, int]] = ()

    def payloads(self, values: Partial) -> list[Mapping[str, Any]]:
        """What stands under the component's name, per row."""
        if self.spec.form is PartialForm.DIRECTIONS:
            bits = np.unpackbits(values, axis=1, count=self.spec.width, bitorder="little")
            return [self._directions(row) for row in bits.tolist()]
        if self.kind is MergeKind.FACTORS:
            return [{"score": score, "fm_cross": sums} for score, *sums in values.tolist()]
        return [{"score": score} for [score] in values.tolist()]

    def _directions(self, bits: Sequence[int]) -> Mapping[str, Any]:
        """Every tree has its place, also one without a node of this host."""
        by_tree: dict[str, dict[str, bool]] = {str(tree): {} for tree in range(self.trees)}
        for (tree, node), bit in zip(self.nodes, bits, strict=True):
            by_tree[str(tree)][str(node)] = bool(bit)
        return by_tree


def partner_half(artifact: Artifact) -> PartnerHalf:
    """Reads files. Raises PartnerError."""
    parts, site = parts_of(artifact), site_of(artifact)
    half = compile_half(parts, site)
    spec = half.servable().partial
    if half.merge.kind is not MergeKind.TREE_WALK:
        if half.merge.kind is MergeKind.SUM and spec.width > 1:
            raise PartnerError("guests that run FATE-Serving know no one-vs-rest")
        return PartnerHalf(half.name, half.merge.kind, spec)
    if spec.form is PartialForm.LEAVES:
        raise PartnerError("guests that run FATE-Serving know no trees that a host walks alone (strategy mix)")
    meta, param = _messages(parts, half.name)
    boosting = Boosting(site, meta, param)
    table = boosting.host_table({fid: place for place, fid in enumerate(boosting.own_features())})
    splits = table.splits_of(GUEST)
    nodes = [(table.tree_of(place), int(place - table.roots[table.tree_of(place)])) for place in splits]
    return PartnerHalf(half.name, half.merge.kind, spec, len(param.trees_), nodes)


def _messages(parts: Parts, component: str) -> tuple[wire.BoostingTreeModelMeta, wire.BoostingTreeModelParam]:
    own = {key: raw for key, raw in parts.items() if key.startswith(f"{component}/")}
    meta = next(raw for key, raw in own.items() if key.endswith("Meta"))
    param = next(raw for key, raw in own.items() if key.endswith("Param"))
    return wire.BoostingTreeModelMeta.FromString(meta), wire.BoostingTreeModelParam.FromString(param)
