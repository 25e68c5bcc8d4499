"""What passes between a guest and a host when one of them runs FATE-Serving: payloads by the name of a component, tree
by tree, node by node. A host's half writes them, a guest's half reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple

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


class Branches(NamedTuple):
    """Of one tree, the nodes of one party, as payloads name them."""

    tree: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartnerHalf:
    """`component`: the name under which a guest looks for the payload. `branches`: of every tree, in the order of the
    bits."""

    component: str
    kind: MergeKind
    spec: PartialSpec
    branches: Sequence[Branches] = ()

    def payloads(self, values: Partial) -> list[Mapping[str, Any]]:
        """What stands under the component's name, per row."""
        if self.spec.form is PartialForm.DIRECTIONS:
            bits = np.unpackbits(values, axis=1, count=self.spec.width, bitorder="little")
            return [self._directions(row) for row in bits.astype(np.bool_).tolist()]
        if self.kind is MergeKind.FACTORS:
            return [{"score": score, "fm_cross": sums} for score, *sums in values.tolist()]
        return [{"score": score} for [score] in values.tolist()]

    def _directions(self, bits: Sequence[bool]) -> Mapping[str, Any]:
        """Every tree has its place, also one without a node of this host."""
        left = iter(bits)
        return {tree: dict(zip(nodes, islice(left, len(nodes)), strict=True)) for tree, nodes in self.branches}


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
    return PartnerHalf(half.name, half.merge.kind, spec, _branches(table, GUEST))


@dataclass(frozen=True, slots=True)
class PayloadReader:
    """How a guest's half reads one host's payloads. `branches` as in `PartnerHalf`, of this host."""

    component: str
    spec: PartialSpec
    branches: Sequence[Branches] = ()

    def partial(self, answered: Mapping[str, Any]) -> Partial:
        """One row of `spec`, from what stands under `data` of a host's reply. Raises PartnerError."""
        payload = answered.get(self.component, answered)  # hosts of the first line name no component
        if self.spec.form is PartialForm.DIRECTIONS:
            bits = np.array(self._directions(payload), dtype=np.uint8)
            return np.packbits(bits, bitorder="little")[None, :]
        if not isinstance(payload, Mapping):
            raise PartnerError(f"component {self.component!r} is no object")
        numbers = [payload.get("score", payload.get("prob"))]
        if self.spec.width > 1:
            sums = payload.get("fm_cross")
            numbers += sums if isinstance(sums, list) else []
        if len(numbers) != self.spec.width or not all(map(_is_number, numbers)):
            raise PartnerError(f"component {self.component!r} does not hold {self.spec.width} finite numbers")
        return np.array([numbers], dtype="<f8")

    def _directions(self, payload: Any) -> list[bool]:
        found: list[bool] = []
        for tree, nodes in self.branches:
            try:
                directions = payload[tree] if nodes else {}
                found += [directions[node] for node in nodes]
            except (KeyError, TypeError):
                raise PartnerError(f"component {self.component!r} lacks directions of tree {tree}") from None
        if not set(map(type, found)) <= {bool}:
            raise PartnerError(f"component {self.component!r} has directions that are not true or false")
        return found


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
    return PayloadReader(half.name, spec, _branches(table, 1 + place))


def _branches(table: NodeTable, owner: int) -> list[Branches]:
    places = table.splits_of(owner)
    ends = np.append(table.roots, table.left.size)
    return [
        Branches(str(tree), tuple(str(place - start) for place in places[(places >= start) & (places < end)]))
        for tree, (start, end) in enumerate(pairwise(ends.tolist()))
    ]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


def _messages(parts: Parts, component: str) -> tuple[wire.BoostingTreeModelMeta, wire.BoostingTreeModelParam]:
    own = {key: raw for key, raw in parts.items() if key.startswith(f"{component}/")}
    meta = next(raw for key, raw in own.items() if key.endswith("Meta"))
    param = next(raw for key, raw in own.items() if key.endswith("Param"))
    return wire.BoostingTreeModelMeta.FromString(meta), wire.BoostingTreeModelParam.FromString(param)
