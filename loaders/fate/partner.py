"""What passes between a guest and a host when one of them runs FATE-Serving: payloads by the name of a component, tree
by tree, node by node. A host's half writes them, a guest's half reads them."""

from __future__ import annotations

import math
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
from loaders.servables.forest import GUEST, NodeTable
from tessera.compat import fate_model_pb2 as wire


class PartnerError(ValueError):
    """A half that FATE-Serving has no words for, or a payload that a guest's half cannot use; the text says why."""


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
    return PartnerHalf(half.name, half.merge.kind, spec, len(param.trees_), _nodes(table, GUEST))


@dataclass(frozen=True, slots=True)
class PayloadReader:
    """How a guest's half reads one host's payloads. `nodes` as in `PartnerHalf`, of this host."""

    component: str
    spec: PartialSpec
    nodes: Sequence[tuple[int, int]] = ()

    def partial(self, answered: Mapping[str, Any]) -> Partial:
        """One row of `spec`, from what stands under `data` of a host's reply. Raises PartnerError."""
        if self.spec.form is PartialForm.DIRECTIONS:
            bits = [self._direction(answered.get(self.component), tree, node) for tree, node in self.nodes]
            return np.packbits(np.array(bits, dtype=np.uint8), bitorder="little")[None, :]
        payload = answered.get(self.component, answered)  # hosts of the first line name no component
        if not isinstance(payload, Mapping):
            raise PartnerError(f"component {self.component!r} is no object")
        numbers = [payload.get("score", payload.get("prob"))]
        if self.spec.width > 1:
            sums = payload.get("fm_cross")
            numbers += sums if isinstance(sums, list) else []
        if len(numbers) != self.spec.width or not all(map(_is_number, numbers)):
            raise PartnerError(f"component {self.component!r} does not hold {self.spec.width} finite numbers")
        return np.array([numbers], dtype="<f8")

    def _direction(self, payload: Any, tree: int, node: int) -> bool:
        try:
            left = payload[str(tree)][str(node)]
        except (KeyError, TypeError, IndexError):
            left = None
        if not isinstance(left, bool):
            raise PartnerError(f"component {self.component!r} has no direction for node {node} of tree {tree}")
        return left


def payload_reader(artifact: Artifact, host: str) -> PayloadReader:
    """Of a guest's half, for one of its hosts. Reads files. Raises PartnerError."""
    parts, site = parts_of(artifact), site_of(artifact)
    half, place = compile_half(parts, site), site.hosts.index(host)
    spec = half.servable().wanted(place)
    if half.merge.kind is not MergeKind.TREE_WALK:
        if half.merge.kind is MergeKind.SUM and spec.width > 1:
            raise PartnerError("hosts that run FATE-Serving know no one-vs-rest")
        return PayloadReader(half.name, spec)
    if spec.form is PartialForm.LEAVES:
        raise PartnerError("hosts that run FATE-Serving cannot walk trees alone (strategy mix)")
    boosting = Boosting(site, *_messages(parts, half.name))
    table = boosting.guest_table({fid: column for column, fid in enumerate(boosting.own_features())})
    return PayloadReader(half.name, spec, _nodes(table, 1 + place))


def _nodes(table: NodeTable, owner: int) -> list[tuple[int, int]]:
    """Tree and node of an owner's splits, in the order of the bits."""
    return [(table.tree_of(place), int(place - table.roots[table.tree_of(place)])) for place in table.splits_of(owner)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _messages(parts: Parts, component: str) -> tuple[wire.BoostingTreeModelMeta, wire.BoostingTreeModelParam]:
    own = {key: raw for key, raw in parts.items() if key.startswith(f"{component}/")}
    meta = next(raw for key, raw in own.items() if key.endswith("Meta"))
    param = next(raw for key, raw in own.items() if key.endswith("Param"))
    return wire.BoostingTreeModelMeta.FromString(meta), wire.BoostingTreeModelParam.FromString(param)
