"""Random federated forests for tests and benchmarks: as nested trees, and as the halves that hold them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from loaders.artifact import HalfRef, Link, Manifest, Merge, MergeKind, SelfTest
from loaders.registry import bind, half_path, write_half
from loaders.signature import Missing, TensorSpec
from tests.artifacts import npy

GUEST = 0


@dataclass
class Leaf:
    value: float


@dataclass
class Split:
    """Left where input `feature` of party `owner` (0 the guest, k the k-th host) is <= `threshold`."""

    owner: int
    feature: int
    threshold: float
    missing_left: bool
    left: Split | Leaf
    right: Split | Leaf


@dataclass
class Forest:
    """`features`: inputs by party. `alone[i]`: the host that walks tree i by itself, 0 for none."""

    features: tuple[int, ...]
    trees: list[Split | Leaf]
    alone: list[int]
    base: list[float] = field(default_factory=lambda: [0.0])


def grow(
    seed: int,
    features: Sequence[int],
    trees: int,
    depth: int,
    *,
    outputs: int = 1,
    full: bool = False,
    mix: bool = False,
) -> Forest:
    """`full`: every tree has all its nodes; `mix`: each tree belongs to one party alone."""
    source = random.Random(seed)
    grown, alone = [], []
    for _ in range(trees):
        party = source.randrange(len(features)) if mix else None
        grown.append(_grow(source, features, depth, party, full))
        alone.append(party or GUEST)
    return Forest(tuple(features), grown, alone, [source.uniform(-1, 1) for _ in range(outputs)])


def _grow(source: random.Random, features: Sequence[int], depth: int, party: int | None, full: bool) -> Split | Leaf:
    if depth == 0 or (not full and source.random() < 0.2):
        return Leaf(source.uniform(-1, 1))
    owner = source.randrange(len(features)) if party is None else party
    below = [_grow(source, features, depth - 1, party, full) for _ in range(2)]
    threshold = round(source.uniform(-1, 1), 1)
    return Split(owner, source.randrange(features[owner]), threshold, source.random() < 0.5, *below)


def evaluate(forest: Forest, rows: Sequence[Sequence[float]]) -> list[float]:
    """Sums of the reached leaves, straight from the nested trees; `rows`: each party's inputs of one user."""
    sums = list(forest.base)
    for number, tree in enumerate(forest.trees):
        node = tree
        while isinstance(node, Split):
            value = rows[node.owner][node.feature]
            left = node.missing_left if math.isnan(value) else value <= node.threshold
            node = node.left if left else node.right
        sums[number % len(sums)] += node.value
    return sums


def flatten(tree: Split | Leaf) -> list[tuple[Split | Leaf, int, int]]:
    """Nodes level by level, with the places of the children."""
    nodes: list[Split | Leaf] = [tree]
    children = []
    for node in nodes:
        if isinstance(node, Split):
            children.append((len(nodes), len(nodes) + 1))
            nodes += [node.left, node.right]
        else:
            children.append((-1, -1))
    return [(node, *pair) for node, pair in zip(nodes, children, strict=True)]


def node_files(forest: Forest, trees: Sequence[int], viewer: int) -> dict[str, bytes]:
    """The table of these trees as `viewer` holds it."""
    nodes, thresholds, values, heads = [], [], [], []
    for number in trees:
        first, foreign = len(nodes), forest.alone[number] != viewer
        heads.append((first, forest.alone[number] if viewer == GUEST else 0))
        for node, left, right in flatten(forest.trees[number]):
            own = isinstance(node, Split) and node.owner == viewer
            values.append(node.value if isinstance(node, Leaf) else 0.0)
            thresholds.append(node.threshold if own else 0.0)
            if isinstance(node, Leaf):
                nodes.append((0, -1, -1, -1, 0))
            elif foreign and forest.alone[number]:
                nodes.append((forest.alone[number], -1, -2, -2, 0))
            else:
                owner = node.owner if viewer == GUEST else 0
                feature = node.feature if own else -1
                nodes.append((owner, feature, first + left, first + right, int(own and node.missing_left)))
    return {
        "nodes.npy": npy_int(nodes, 5),
        "trees.npy": npy_int(heads, 2),
        "thresholds.npy": npy(thresholds),
        "values.npy": npy(values),
    }


def host_files(forest: Forest, host: int) -> dict[str, bytes]:
    mine = [number for number, walker in enumerate(forest.alone) if walker == host]
    if mine:
        files = node_files(forest, mine, host)
        del files["values.npy"]
        return files
    nodes = [node for tree in forest.trees for node, *_ in flatten(tree)]
    splits = [node for node in nodes if isinstance(node, Split) and node.owner == host]
    return {
        "splits.npy": npy_int([(node.feature, int(node.missing_left)) for node in splits], 2),
        "thresholds.npy": npy([node.threshold for node in splits]),
    }


def guest_files(forest: Forest) -> dict[str, bytes]:
    return {**node_files(forest, range(len(forest.trees)), GUEST), "base.npy": npy(forest.base)}


def npy_int(rows: Sequence[Sequence[int]], columns: int) -> bytes:
    return npy(np.array(rows, dtype=np.int32).reshape(-1, columns), np.int32)


def half(role: str, party: str, features: int, link: Link = Link.IDENTITY) -> Manifest:
    return Manifest(
        model="m",
        version="1",
        role=role,
        party=party,
        format="trees",
        inputs=tuple(
            TensorSpec(name=f"{party}{number}", dtype="float64", shape=(-1,), missing=Missing.NATIVE)
            for number in range(features)
        ),
        outputs=(TensorSpec(name="directions", dtype="uint8", shape=(-1, 1)),),
        merge=Merge(kind=MergeKind.TREE_WALK, link=link),
    )


def publish(
    roots: Mapping[str, Path],
    forest: Forest,
    guest: str = "bank",
    link: Link = Link.IDENTITY,
    self_test: SelfTest | None = None,
) -> str:
    """The halves of `forest` in the parties' registries; hosts are the other parties, by name. `self_test` is the
    guest's. Returns the digest of the binding."""
    parties = [guest, *sorted(set(roots) - {guest})]
    refs = []
    for number, party in enumerate(parties):
        role = "host" if number else "guest"
        files = host_files(forest, number) if number else guest_files(forest)
        manifest = half(role, party, forest.features[number], link)
        manifest = msgspec.structs.replace(manifest, self_test=None if number else self_test)
        refs.append(HalfRef(role, party, write_half(roots[party], manifest, files)))
    digests = {bind(half_path(roots[ref.party], "m", "1", ref.role, ref.party), refs) for ref in refs}
    return digests.pop()
