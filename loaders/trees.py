"""Format `trees`: halves of federated decision trees.

Files of int32: `trees.npy` (trees, 2): first node, and who walks it: 0 the guest with everybody's directions, k the
k-th host of the binding alone. `nodes.npy` (nodes, 5): owner (0 this party, at the guest k for the k-th host), input of
this party, left and right child (positions; -1 at leaves, -2 at nodes of which this party knows nothing), 1 where a
missing input goes left. The nodes of a tree stand together, trees in order. Files of float64: `thresholds.npy` and, at
the guest, `values.npy` (nodes,) and `base.npy` (outputs,); tree i adds to output i mod outputs.

A host that owns splits of trees that the guest walks has only `splits.npy` (splits, 2): input, missing goes left, and
`thresholds.npy` (splits,), in the order of tree and node. A host that walks alone has `trees.npy`, `nodes.npy` and
`thresholds.npy`, all owners and walkers 0.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from loaders.artifact import MergeKind
from loaders.loader import Loader, LoadError, Servable
from loaders.servables.arrays import read_integers, read_numbers
from loaders.servables.forest import GUEST, ForestError, NodeTable, guest_trees, host_splits, own_forest
from loaders.servables.trees import Integers, LoneTreeHost, TreeGuest, TreeHost
from loaders.signature import FeatureError, Missing, Numbers, Signature


class TreesLoader(Loader):
    """One party's half of a forest."""

    format: ClassVar[str] = "trees"

    def estimate(self) -> int:
        return 4 * sum(entry.bytes for entry in self.artifact.files.values())

    def load(self) -> Servable:
        signature = self._signature()
        try:
            return self._guest(signature) if self.artifact.manifest.role == "guest" else self._host(signature)
        except ForestError as error:
            raise LoadError(f"nodes.npy: {error}") from None

    def _guest(self, signature: Signature) -> Servable:
        base = np.atleast_1d(read_numbers(self.artifact, "base.npy"))
        hosts = sum(half.role == "host" for half in self.artifact.manifest.binding or ())
        table = self._table(self._numbers("values.npy"))
        return TreeGuest(signature, guest_trees(table, len(signature.numbers), hosts, base))

    def _host(self, signature: Signature) -> Servable:
        features = len(signature.numbers)
        if "splits.npy" in self.artifact.files:
            return TreeHost(signature, host_splits(self._split_table(), GUEST, features))
        return LoneTreeHost(signature, *own_forest(self._table(None), features))

    def _signature(self) -> Signature:
        manifest = self.artifact.manifest
        try:
            signature = Signature(manifest.inputs, manifest.outputs)
        except FeatureError as error:
            raise LoadError(f"inputs: {error}") from None
        if signature.texts or len(manifest.outputs) != 1:
            raise LoadError("a half of trees takes numbers only and has one output")
        if manifest.merge.kind is not MergeKind.TREE_WALK or manifest.preprocess:
            raise LoadError("a half of trees merges by tree_walk and takes no preprocess steps")
        if any(spec.missing is Missing.IMPUTE for spec in manifest.inputs):
            raise LoadError("trees impute nothing; declare missing error or native")
        return signature

    def _table(self, values: Numbers | None) -> NodeTable:
        nodes, trees = self._columns("nodes.npy", 5), self._columns("trees.npy", 2)
        thresholds = self._numbers("thresholds.npy")
        values = np.zeros(thresholds.size) if values is None else values
        if not thresholds.shape == values.shape == (nodes.shape[0],):
            raise LoadError(f"thresholds.npy or values.npy do not hold one number for each of {nodes.shape[0]} nodes")
        roots = trees[:, 0]
        if not roots.size or roots[0] != 0 or (np.diff(roots) <= 0).any() or roots[-1] >= nodes.shape[0]:
            raise LoadError("trees.npy: the first nodes of the trees must rise, from 0")
        owner, feature, left, right, missing_left = np.ascontiguousarray(nodes.T)
        return NodeTable(owner, feature, left, right, missing_left, thresholds, values, roots, trees[:, 1])

    def _split_table(self) -> NodeTable:
        """A host's splits as nodes of one tree; nothing walks them here."""
        splits = self._columns("splits.npy", 2)
        thresholds = self._numbers("thresholds.npy")
        if thresholds.shape != (splits.shape[0],):
            raise LoadError(f"thresholds.npy does not hold one number for each of {splits.shape[0]} splits")
        none = np.zeros(splits.shape[0], dtype=np.int32)
        first = np.zeros(1, dtype=np.int32)
        return NodeTable(none, splits[:, 0], none, none, splits[:, 1], thresholds, thresholds, first, first)

    def _numbers(self, name: str) -> Numbers:
        return read_numbers(self.artifact, name)

    def _columns(self, name: str, columns: int) -> Integers:
        values = read_integers(self.artifact, name)
        if values.ndim != 2 or values.shape[1] != columns:
            raise LoadError(f"{name} has shape {values.shape}, it must have {columns} columns")
        return values
