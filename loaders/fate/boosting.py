"""FATE's boosted trees as one table of nodes, and the rule from their sums to the score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from loaders.artifact import Link, Merge, MergeKind
from loaders.fate.component import ComponentError, Site
from loaders.servables.forest import GUEST, LEAF, PLACEHOLDER, NodeTable
from loaders.signature import Numbers
from tessera.compat import fate_model_pb2 as wire

TOLERANCE = 1e-8
"""A value this much above a split still goes left, except in trees that a host walks alone."""
LEFT_WHEN_MISSING, RIGHT_WHEN_MISSING = -1, 1
"""Values of missing_dir."""
NOBODY = -1
"""Owns the nodes of others at a host."""
HOST_ALONE = "1"
"""What the plan of a tree begins with that is one host's."""


@dataclass(frozen=True)
class Boosting:
    """The model as one party holds it."""

    site: Site
    meta: wire.BoostingTreeModelMeta
    param: wire.BoostingTreeModelParam

    def check(self) -> None:
        """Raises ComponentError for what has no served meaning."""
        nodes = [node for tree in self.param.trees_ for node in tree.tree_]
        if any(node.mo_weight for node in nodes):
            raise ComponentError("trees with several outputs each (multi_mode multi_output) are not served")
        if not self.param.trees_:
            raise ComponentError("it has no trees")
        if self._outputs > 1 and self.param.tree_dim != self._outputs and self.site.role == "guest":
            raise ComponentError(f"{self._outputs} classes with {self.param.tree_dim} trees each are not served")
        if self._outputs not in {1, len(self.param.classes_)} and self.site.role == "guest":
            raise ComponentError(f"it has {self._outputs} classes and {len(self.param.classes_)} names of classes")

    @property
    def zero_is_missing(self) -> bool:
        """FATE-Serving compares zeros with the split."""
        meta = self.meta
        uses = meta.use_missing or meta.tree_meta.use_missing
        return uses and (meta.zero_as_missing or meta.tree_meta.zero_as_missing) and not self.site.compat

    @property
    def merge(self) -> Merge:
        if self.site.role != "guest":
            return Merge(kind=MergeKind.TREE_WALK)
        if self._outputs > 1:
            return Merge(kind=MergeKind.TREE_WALK, link=Link.SOFTMAX, labels=tuple(self.param.classes_))
        if self._is_binary:
            return Merge(kind=MergeKind.TREE_WALK, link=Link.SIGMOID)
        exponential = self.meta.objective_meta.objective == "tweedie" and not self.site.compat
        return Merge(kind=MergeKind.TREE_WALK, link=Link.EXP if exponential else Link.IDENTITY)

    @property
    def base(self) -> Numbers:
        """What is added to the sums; for two classes FATE-Serving adds nothing."""
        given = np.array(self.param.init_score)
        if not given.size or (self._is_binary and self.site.compat):
            return np.zeros(self._outputs)
        if given.size != self._outputs or not np.isfinite(given).all():
            raise ComponentError(f"{given.size} initial scores for {self._outputs} outputs, or not finite ones")
        return given

    @cached_property
    def alone(self) -> list[str]:
        """By tree, the party id of the host that walks it, "" for none."""
        plan = list(self.param.tree_plan)
        if len(plan) not in {0, len(self.param.trees_)}:
            raise ComponentError(f"it has {len(self.param.trees_)} trees and a plan for {len(plan)}")
        parts = [entry.partition("_") for entry in plan] or [("", "", "")] * len(self.param.trees_)
        return [host if kind == HOST_ALONE else "" for kind, _, host in parts]

    @property
    def _is_regression(self) -> bool:
        return self.param.num_classes < 2 or (self.meta.task_type == "regression" and not self.site.compat)

    @property
    def _is_binary(self) -> bool:
        return not self._is_regression and self.param.num_classes == 2

    @property
    def _outputs(self) -> int:
        return 1 if self._is_regression or self._is_binary else self.param.num_classes

    def own_features(self) -> list[int]:
        """Ids of the features that this party's splits name, in order."""
        return sorted({node.fid for number in self._own_trees() for node in self._splits(number)})

    def guest_table(self, places: Mapping[int, int]) -> NodeTable:
        """All trees; `places`: feature ids to columns."""
        return self._table(range(len(self.param.trees_)), places)

    def host_table(self, places: Mapping[int, int]) -> NodeTable:
        """The trees that this host walks alone if there are any, else all, of which only its own splits count."""
        return self._table(self._own_trees(), places)

    @property
    def walks_alone(self) -> bool:
        return self.site.role == "host" and self.site.party in self.alone

    def _own_trees(self) -> list[int]:
        trees = range(len(self.param.trees_))
        return [number for number in trees if self.alone[number] == self.site.party] if self.walks_alone else [*trees]

    def _splits(self, number: int) -> Iterator[wire.NodeParam]:
        for node in self.param.trees_[number].tree_:
            if not node.is_leaf and node.sitename == self.site.name:
                yield node

    def _table(self, trees: Iterable[int], places: Mapping[int, int]) -> NodeTable:
        rows: list[tuple[int, int, int, int, int]] = []
        thresholds: list[float] = []
        values: list[float] = []
        heads: list[tuple[int, int]] = []
        for number in trees:
            tree, first = self.param.trees_[number], len(rows)
            if not tree.tree_:
                raise ComponentError(f"tree {number} has no nodes")
            heads.append((first, self._walker(number)))
            for place, node in enumerate(tree.tree_):
                reader = _Node(self.site, self.walks_alone, number, tree, node)
                rows.append(reader.row(place, first, places))
                thresholds.append(reader.threshold)
                values.append(node.weight * self.meta.learning_rate if node.is_leaf else 0.0)
        owner, feature, left, right, missing_left = np.array(rows, dtype=np.int32).T.copy()
        roots, walkers = np.array(heads, dtype=np.int32).T.copy()
        table = NodeTable(
            owner, feature, left, right, missing_left, np.array(thresholds), np.array(values), roots, walkers
        )
        if not (np.isfinite(table.threshold).all() and np.isfinite(table.value).all()):
            raise ComponentError("a split or a leaf is not finite")
        return table

    def _walker(self, number: int) -> int:
        host = self.alone[number]
        if not host or self.site.role != "guest":
            return GUEST
        if host not in self.site.hosts:
            raise ComponentError(f"tree {number} is host {host}'s, and the model has no such host")
        return 1 + self.site.hosts.index(host)


@dataclass(frozen=True, slots=True)
class _Node:
    """One node as a row of the table. Ids are places in the tree's list."""

    site: Site
    walks_alone: bool
    number: int
    tree: wire.DecisionTreeModelParam
    node: wire.NodeParam

    def row(self, place: int, first: int, places: Mapping[int, int]) -> tuple[int, int, int, int, int]:
        node = self.node
        if node.is_leaf:
            return (GUEST, -1, LEAF, LEAF, 0)
        if not node.sitename or node.left_nodeid < 0 or node.right_nodeid < 0:
            return (GUEST, -1, PLACEHOLDER, PLACEHOLDER, 0)
        if node.id != place:
            raise ComponentError(f"tree {self.number}: node {node.id} stands at place {place}")
        if max(node.left_nodeid, node.right_nodeid) >= len(self.tree.tree_):
            raise ComponentError(f"tree {self.number}: node {node.id} has a child outside of the tree")
        feature = places[node.fid] if self._is_own else -1
        owner, left, right = self._owner(), first + node.left_nodeid, first + node.right_nodeid
        return (owner, feature, left, right, int(self._is_own and self._missing_goes_left()))

    @property
    def _is_own(self) -> bool:
        return not self.node.is_leaf and self.node.sitename == self.site.name

    @property
    def threshold(self) -> float:
        if not self._is_own:
            return 0.0
        if self.walks_alone:
            return self.node.bid
        if self.node.id not in self.tree.split_maskdict:
            raise ComponentError(f"tree {self.number}: node {self.node.id} has no value to split at")
        return self.tree.split_maskdict[self.node.id] + TOLERANCE

    def _missing_goes_left(self) -> bool:
        node, known = self.node, self.tree.missing_dir_maskdict
        if self.walks_alone:
            return node.missing_dir != RIGHT_WHEN_MISSING
        if self.site.compat:
            return node.id in known and known[node.id] != RIGHT_WHEN_MISSING
        return known.get(node.id, node.missing_dir) == LEFT_WHEN_MISSING

    def _owner(self) -> int:
        """0 for this party. At a host others' nodes are nobody's: only its own splits count there."""
        if self._is_own:
            return GUEST
        role, _, party = self.node.sitename.partition(":")
        if role == "host" and party in self.site.hosts:
            return 1 + self.site.hosts.index(party)
        if self.site.role == "host":
            return NOBODY
        raise ComponentError(
            f"tree {self.number}: node {self.node.id} is of {self.node.sitename!r}, no party of the model"
        )
