"""From a table of tree nodes to what a party evaluates, with the checks that make walking safe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loaders.loader import PartialForm, PartialSpec
from loaders.servables.trees import Forest, GuestTrees, Integers, LeafTable, Splits
from loaders.signature import Numbers

GUEST = 0
"""The owner and walker 0; hosts are 1, 2, ... in the order of the binding."""
LEAF, PLACEHOLDER = -1, -2
"""In the column `left`: an end of the tree; a node of which this party knows nothing."""


class ForestError(ValueError):
    """A table that is no forest; the text names the tree or node."""


@dataclass(frozen=True, slots=True)
class NodeTable:
    """Nodes of all trees, each tree's side by side, trees in order; children are positions. `feature`, `threshold` and
    `missing_left` count at nodes of this party, `value` at leaves. `roots` and `walkers` are per tree."""

    owner: Integers
    feature: Integers
    left: Integers
    right: Integers
    missing_left: Integers
    threshold: Numbers
    value: Numbers
    roots: Integers
    walkers: Integers

    def splits_of(self, owner: int) -> npt.NDArray[np.intp]:
        """Positions of a party's splits, in the order of its bits; trees that a host walks alone have none."""
        mine = (self.owner == owner) & (self.left >= 0)
        return np.flatnonzero(mine & (np.repeat(self.walkers, self.sizes) == GUEST))

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """Nodes per tree."""
        return np.diff(np.append(self.roots, self.left.size))

    def tree_of(self, node: int) -> int:
        return int(np.searchsorted(self.roots, node, side="right")) - 1


def host_splits(table: NodeTable, owner: int, features: int) -> Splits:
    """The splits of one party. Raises ForestError for inputs that it does not have."""
    places = table.splits_of(owner)
    feature = table.feature[places]
    wrong = places[(feature < 0) | (feature >= features)]
    if wrong.size:
        raise ForestError(
            f"tree {table.tree_of(wrong[0])}: a split names input {table.feature[wrong[0]]} of {features}"
        )
    return Splits(feature, table.threshold[places], table.missing_left[places])


def own_forest(table: NodeTable, features: int) -> tuple[Splits, Forest]:
    """Trees that this party walks from root to leaf with its own splits only. Raises ForestError."""
    splits = host_splits(table, GUEST, features)
    return splits, _forest(table, table.splits_of(GUEST))


def guest_trees(table: NodeTable, features: int, hosts: int, base: Numbers) -> GuestTrees:
    """The guest's half. Raises ForestError."""
    if table.roots.size == 0 or table.roots.size % base.size:
        raise ForestError(f"{table.roots.size} trees for {base.size} outputs")
    if table.owner.max(initial=0) > hosts or table.walkers.max(initial=0) > hosts or table.owner.min(initial=0) < 0:
        raise ForestError(f"the nodes name a host that is not among the {hosts} of the binding")
    places = [table.splits_of(owner) for owner in range(hosts + 1)]
    tables, wanted, walked = {}, [], [np.flatnonzero(table.walkers == GUEST)]
    for host in range(1, hosts + 1):
        alone = np.flatnonzero(table.walkers == host)
        if alone.size and places[host].size:
            raise ForestError(f"host {host} walks trees alone and owns splits of others: a half sends one or the other")
        if alone.size:
            tables[host - 1] = _leaf_table(table, alone)
            walked.append(alone)
        form = PartialForm.LEAVES if alone.size else PartialForm.DIRECTIONS
        wanted.append(PartialSpec(form, int(alone.size or places[host].size)))
    return GuestTrees(
        splits=host_splits(table, GUEST, features),
        forest=_forest(table, np.concatenate(places)),
        values=table.value,
        wanted=tuple(wanted),
        tables=tables,
        order=_order(np.concatenate(walked), base.size),
        base=base,
    )


def _order(trees: npt.NDArray[np.intp], outputs: int) -> npt.NDArray[np.intp]:
    """Where each tree stands, first those of output 0, then of output 1, ..."""
    place = np.argsort(trees)
    return np.concatenate([place[output::outputs] for output in range(outputs)])


def _leaf_table(table: NodeTable, alone: npt.NDArray[np.intp]) -> LeafTable:
    values = np.where(table.left == LEAF, table.value, np.nan)
    return LeafTable(table.roots[alone], table.sizes[alone].astype(np.int32), values)


def _forest(table: NodeTable, columns: npt.NDArray[np.intp]) -> Forest:
    """The trees that the guest walks; `columns`: positions of the nodes behind the bits."""
    roots = table.roots[table.walkers == GUEST]
    column = np.full(table.left.size, -1, dtype=np.int32)
    column[columns] = np.arange(columns.size)
    return Forest(table.left, table.right, column, roots, _depth(table, roots, column))


def _depth(table: NodeTable, roots: Integers, column: Integers) -> int:
    """Steps to the farthest leaf. Raises ForestError unless every way down ends at a leaf of the same tree."""
    level, depth = roots.astype(np.intp), 0
    seen = np.zeros(table.left.size, dtype=np.bool_)
    tree = np.repeat(np.arange(table.roots.size), table.sizes)
    while True:
        if seen[level].any() or np.unique(level).size != level.size:
            raise ForestError(f"tree {tree[level[seen[level].argmax()]]}: two ways lead to one node")
        seen[level] = True
        inner = level[table.left[level] != LEAF]
        if not inner.size:
            return depth
        _check_inner(table, inner, column, tree)
        level = np.concatenate([table.left[inner], table.right[inner]]).astype(np.intp)
        depth += 1


def _check_inner(table: NodeTable, inner: npt.NDArray[np.intp], column: Integers, tree: npt.NDArray[np.intp]) -> None:
    unknown = inner[(table.left[inner] < 0) | (column[inner] < 0)]
    if unknown.size:
        raise ForestError(f"tree {tree[unknown[0]]}: a way down leads to a node of which nothing is known")
    for side in (table.left[inner], table.right[inner]):
        strays = inner[(side < 0) | (side >= table.left.size)]
        if strays.size or (tree[side] != tree[inner]).any():
            raise ForestError(f"tree {tree[(strays if strays.size else inner)[0]]}: a child lies outside of its tree")
