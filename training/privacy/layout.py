"""How a matrix and a vector are laid into ciphertext slots, so that one multiplication serves several columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.privacy.matrix_cipher import Residues, Shape

Integers = npt.NDArray[np.int64]

# A reply costs about three times a query: it carries the protections and is decrypted.
REPLY_COST = 3


@dataclass(frozen=True, slots=True)
class Layout:
    """`side` columns stand one below the other in a ciphertext, each `height` slots high.

    The vector is cut into `chunks` of `height` rows, each chunk is one query ciphertext with the chunk repeated `side`
    times. The columns are taken in `groups` of `side`; the products of one group's chunks add up to one reply.
    """

    shape: Shape
    slots: int
    side: int

    @classmethod
    def choose(cls, shape: Shape, slots: int) -> Layout:
        """The layout with the least work for both parties together."""
        sides = range(1, min(shape.columns, slots) + 1)
        return min((cls(shape, slots, side) for side in sides), key=lambda layout: layout.cost)

    @property
    def height(self) -> int:
        return self.slots // self.side

    @property
    def chunks(self) -> int:
        return -(-self.shape.rows // self.height)

    @property
    def groups(self) -> int:
        return -(-self.shape.columns // self.side)

    @property
    def cost(self) -> int:
        return self.chunks + REPLY_COST * self.groups

    def spread(self, vector: Integers) -> Integers:
        """The vector's slots, (chunks, slots)."""
        padded = np.zeros((self.chunks, 1, self.height), dtype=np.int64)
        padded.reshape(-1)[: vector.size] = vector
        return self._fill(np.repeat(padded, self.side, axis=1))

    def tile(self, matrix: Integers, group: int) -> Integers:
        """The slots of one group of columns, (chunks, slots)."""
        columns = matrix[:, group * self.side : (group + 1) * self.side]
        padded = np.zeros((self.chunks * self.height, self.side), dtype=np.int64)
        padded[: columns.shape[0], : columns.shape[1]] = columns
        return self._fill(padded.reshape(self.chunks, self.height, self.side).transpose(0, 2, 1))

    def column_sums(self, replies: Residues, modulus: int) -> Residues:
        """Sums modulo `modulus` per column, (columns,), of the replies' slots (groups, slots)."""
        columns = replies[:, : self.side * self.height].reshape(-1, self.height)
        sums: Residues = columns.sum(axis=1, dtype=np.uint64) % np.uint64(modulus)
        return sums[: self.shape.columns]

    def _fill(self, blocks: Integers) -> Integers:
        flat = blocks.reshape(self.chunks, -1)
        return np.pad(flat, ((0, 0), (0, self.slots - flat.shape[1])))
