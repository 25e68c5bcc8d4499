"""Federated decision trees: who owns a split answers it with one bit, and the guest walks all trees by those bits.

A bit is 1 where the row goes left. Nodes of all trees stand in one table; walked are all trees and rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loaders.loader import NO_LEAF, Outputs, Partial, PartialError, PartialForm, PartialSpec, Scores, Servable
from loaders.signature import Batch, Numbers, Signature

Integers = npt.NDArray[np.int32]
Bits = npt.NDArray[np.uint8]

ROWS_AT_ONCE = 128
"""What one step makes of so many rows stays in the second-level cache: four times as fast as 1 000 at once."""


@dataclass(frozen=True, slots=True)
class Splits:
    """One party's splits, in the order of their bits: left where the number in column `feature` is <= `threshold`;
    a missing number goes left where `missing_left` is 1."""

    feature: Integers
    threshold: Numbers
    missing_left: Integers

    @property
    def count(self) -> int:
        return int(self.feature.size)

    def bits(self, numbers: Numbers) -> Bits:
        """One byte per row and split, 0 or 1."""
        rows = numbers.shape[0]
        if rows <= ROWS_AT_ONCE:
            return self._bits(numbers)
        parts = [self._bits(numbers[start : start + ROWS_AT_ONCE]) for start in range(0, rows, ROWS_AT_ONCE)]
        return np.concatenate(parts)

    def _bits(self, numbers: Numbers) -> Bits:
        values = numbers.take(self.feature, axis=1)
        left = values <= self.threshold
        if np.isnan(numbers).any():
            left |= np.isnan(values) & (self.missing_left == 1)
        return left.view(np.uint8)


@dataclass(frozen=True, slots=True)
class Forest:
    """The trees that a party walks. `left`, `right`: positions of the children, -1 at leaves. `column`: which bit
    decides at a node. `roots`: one position per tree. `depth`: steps from a root to the farthest leaf."""

    left: Integers
    right: Integers
    column: Integers
    roots: Integers
    depth: int

    def walker(self) -> Walker:
        return Walker(self)


class Walker:
    """Leaves of all trees for a batch of rows.

    A state is twice the position of a node, so that state + bit is the place of the next state in one table of both
    children; a leaf leads to itself.
    """

    def __init__(self, forest: Forest) -> None:
        nodes = np.arange(forest.left.size, dtype=np.intp)
        leaf = forest.left < 0
        follow = np.empty(2 * nodes.size, dtype=np.intp)
        follow[0::2] = 2 * np.where(leaf, nodes, forest.right)
        follow[1::2] = 2 * np.where(leaf, nodes, forest.left)
        self._next = follow
        self._column = np.repeat(np.where(leaf, 0, forest.column), 2).astype(np.intp)
        self._start = 2 * forest.roots.astype(np.intp)
        self._depth = forest.depth

    def leaves(self, bits: Bits) -> npt.NDArray[np.intp]:
        """Positions (rows, trees) from bits (rows, all columns)."""
        rows, columns = bits.shape
        if not columns:
            return np.broadcast_to(self._start >> 1, (rows, self._start.size))
        flat = bits.reshape(-1)
        if rows == 1:
            state = self._start
            for _ in range(self._depth):
                state = self._next.take(state + flat.take(self._column.take(state)))
            return (state >> 1)[None, :]
        state = np.broadcast_to(self._start, (rows, self._start.size))
        offset = np.arange(0, rows * columns, columns)[:, None]
        for _ in range(self._depth):
            place = self._column.take(state)
            place += offset
            state = self._next.take(state + flat.take(place))
        return state >> 1


class TreeHost(Servable):
    """A host whose nodes lie among those of others: it sends the direction at every split it owns."""

    def __init__(self, signature: Signature, splits: Splits) -> None:
        self.signature = signature
        self._splits = splits
        self._output = signature.outputs[0].name

    @property
    def partial(self) -> PartialSpec:
        return PartialSpec(PartialForm.DIRECTIONS, self._splits.count)

    def predict(self, batch: Batch) -> Outputs:
        return {self._output: np.packbits(self._splits.bits(batch.numbers), axis=1, bitorder="little")}


class LoneTreeHost(Servable):
    """A host that walks whole trees by itself: it sends the leaf of each, counted from the tree's root."""

    def __init__(self, signature: Signature, splits: Splits, forest: Forest) -> None:
        self.signature = signature
        self._splits = splits
        self._walker = forest.walker()
        self._roots = forest.roots
        self._output = signature.outputs[0].name

    @property
    def partial(self) -> PartialSpec:
        return PartialSpec(PartialForm.LEAVES, int(self._roots.size))

    def predict(self, batch: Batch) -> Outputs:
        leaves = self._walker.leaves(self._splits.bits(batch.numbers)) - self._roots
        return {self._output: leaves.astype("<u4")}


@dataclass(frozen=True, slots=True)
class LeafTable:
    """The trees that a host walks alone: `start`, `size`: where in `values` each tree's leaves lie, by their ids."""

    start: Integers
    size: Integers
    values: Numbers

    def look_up(self, leaves: Partial) -> Numbers:
        """NaN for rows without an answer. Raises PartialError for a leaf that a tree does not have."""
        place = np.where(leaves < self.size, leaves + self.start.astype(np.int64), -1)
        found: Numbers = np.where(place < 0, np.nan, self.values.take(place, mode="clip"))
        if (np.isnan(found) & (leaves != NO_LEAF)).any():
            raise PartialError("a leaf that the tree does not have")
        return found


@dataclass(frozen=True, slots=True)
class GuestTrees:
    """What the guest holds: `values` of the nodes of `forest` (only leaves' are used); `wanted`: of each host;
    `tables`: by host, for those that walk alone; `order`: from trees as they stand (walked here, then each host's)
    to trees of output 0, of output 1, ...; `base` (outputs,) is added to the sums."""

    splits: Splits
    forest: Forest
    values: Numbers
    wanted: tuple[PartialSpec, ...]
    tables: dict[int, LeafTable]
    order: npt.NDArray[np.intp]
    base: Numbers


class TreeGuest(Servable):
    """The guest's half: its own bits, then the walk with the bits and leaves of the hosts."""

    def __init__(self, signature: Signature, trees: GuestTrees) -> None:
        self.signature = signature
        self._trees = trees
        self._walker = trees.forest.walker()
        self._output = signature.outputs[0].name

    @property
    def partial(self) -> PartialSpec:
        return PartialSpec(PartialForm.DIRECTIONS, self._trees.splits.count)

    @property
    def score_width(self) -> int:
        return int(self._trees.base.size)

    def wanted(self, host: int) -> PartialSpec:
        return self._trees.wanted[host]

    def predict(self, batch: Batch) -> Outputs:
        return {self._output: np.packbits(self._trees.splits.bits(batch.numbers), axis=1, bitorder="little")}

    def combine(self, partials: Sequence[Partial]) -> Scores:
        """Sums of the reached leaves (rows, outputs). Raises PartialError."""
        rows = partials[0].shape[0]
        if rows <= ROWS_AT_ONCE:
            return self._walk(partials)
        blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, rows, ROWS_AT_ONCE)]
        return np.concatenate([self._walk([partial[block] for partial in partials]) for block in blocks])

    def _walk(self, partials: Sequence[Partial]) -> Scores:
        trees = self._trees
        rows = partials[0].shape[0]
        bits = [_unpacked(self.partial, partials[0])]
        parts = []
        for host, (spec, partial) in enumerate(zip(trees.wanted, partials[1:], strict=True)):
            if spec.form is PartialForm.DIRECTIONS:
                bits.append(_unpacked(spec, partial))
            else:
                parts.append(trees.tables[host].look_up(partial))
        together = bits[0] if len(bits) == 1 else np.concatenate(bits, axis=1)
        parts.insert(0, trees.values.take(self._walker.leaves(together)))
        leaves = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        # Each output's trees side by side, so that every row is added in the same order whatever the batch.
        grouped = leaves.take(trees.order, axis=1).reshape(rows, trees.base.size, -1)
        sums: Scores = np.add.reduce(grouped, axis=2) + trees.base
        return sums


def _unpacked(spec: PartialSpec, packed: Partial) -> Bits:
    return np.unpackbits(packed, axis=1, count=spec.width, bitorder="little")
