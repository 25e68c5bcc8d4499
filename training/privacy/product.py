"""The four steps of a matrix cipher between two parties, over a channel, with the heavy work in other processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from training.component import Context, ScopedChannel
from training.privacy.matrix_cipher import Floats, KeyPair, MatrixCipher, ProtocolError, Shape


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Lends its vector, encrypted, to one column owner. `columns` is what that party declared, once."""

    context: Context
    channel: ScopedChannel
    cipher: MatrixCipher
    keys: KeyPair = field(repr=False)
    columns: int

    async def lend(self, vector: Floats, step: int) -> None:
        """Returns after the sums are on their way. Raises ProtocolError or CapacityError."""
        shape = Shape(vector.size, self.columns)
        query = await self.context.compute(self.cipher.encrypt, self.keys.secret, shape, vector)
        await self.channel.send("residual", query, step)
        reply = await self.channel.receive("gradient", step)
        sums = await self.context.compute(self.cipher.open_sums, self.keys.secret, shape, reply)
        await self.channel.send("sums", sums.astype("<u8").tobytes(), step)


@dataclass(frozen=True, slots=True)
class ColumnOwner:
    """Multiplies its columns into the vector that the key owner lends."""

    context: Context
    channel: ScopedChannel
    cipher: MatrixCipher
    public: bytes = field(repr=False)

    async def multiply(self, matrix: Floats, step: int) -> Floats:
        """X^T d, (columns,). Raises ProtocolError or CapacityError."""
        shape = Shape(*matrix.shape)
        query = await self.channel.receive("residual", step)
        masked = await self.context.compute(self.cipher.multiply, self.public, shape, matrix, query)
        await self.channel.send("gradient", masked.reply, step)
        payload = await self.channel.receive("sums", step)
        if len(payload) != 8 * shape.columns:
            raise ProtocolError(f"expected {shape.columns} sums, received {len(payload)} bytes")
        return self.cipher.unmask(np.frombuffer(payload, dtype="<u8").astype(np.uint64), masked.masks)
