"""Messages that arrive compressed (grpc/doc/compression.md), and where they are inflated: no client waits for those of
another."""

from __future__ import annotations

import asyncio
import zlib
from concurrent.futures import Executor
from dataclasses import dataclass

from serving.transport.status import Code, RpcError, too_large

AT_ONCE_BYTES = 64 << 10
"""Inflated on the event loop in one turn, at most: a fraction of a millisecond."""
_LEAST_BYTES = 18
_GZIP = 31


@dataclass(frozen=True, slots=True)
class Squeezed:
    """A gzip message as it came, and the size that it claims to have inflated (RFC 1952, section 2.3.1)."""

    message: bytes
    size: int

    @classmethod
    def of(cls, message: bytes, max_bytes: int) -> Squeezed:
        """Raises RpcError for one that claims more than `max_bytes`."""
        if len(message) < _LEAST_BYTES:
            raise RpcError(Code.INTERNAL, "a compressed message cut short")
        size = int.from_bytes(message[-4:], "little")
        if size > max_bytes:
            raise too_large(size, max_bytes)
        return cls(message, size)

    def inflated(self) -> bytes:
        """Any thread. Raises RpcError; what claimed too little is found out after one byte more."""
        inflater = zlib.decompressobj(_GZIP)
        try:
            plain = inflater.decompress(self.message, self.size + 1)
        except zlib.error:
            raise RpcError(Code.INTERNAL, "a message that is not gzip") from None
        if len(plain) != self.size or not inflater.eof or inflater.unused_data:
            raise RpcError(Code.INTERNAL, "a message that is not gzip of the size that it claims")
        return plain


class Turn:
    """What may still be inflated on the event loop in this turn of it, by all connections of a server."""

    __slots__ = ("_left_bytes",)

    def __init__(self) -> None:
        self._left_bytes = AT_ONCE_BYTES

    def takes(self, size: int) -> bool:
        if size > self._left_bytes:
            return False
        if self._left_bytes == AT_ONCE_BYTES:
            asyncio.get_running_loop().call_soon(self._next)
        self._left_bytes -= size
        return True

    def _next(self) -> None:
        self._left_bytes = AT_ONCE_BYTES


class Inflation:
    """Of one connection: little at once, the rest in a thread, one message after another, so that connections take
    turns there."""

    __slots__ = ("_order", "_threads", "_turn")

    def __init__(self, turn: Turn, threads: Executor) -> None:
        self._turn = turn
        self._threads = threads
        self._order: asyncio.Lock | None = None

    async def inflated(self, squeezed: Squeezed) -> bytes:
        """Raises RpcError."""
        if self._turn.takes(squeezed.size):
            return squeezed.inflated()
        if self._order is None:
            self._order = asyncio.Lock()
        async with self._order:
            return await asyncio.get_running_loop().run_in_executor(self._threads, squeezed.inflated)


async def inflated(squeezed: Squeezed) -> bytes:
    """For a client, which chose whom to ask. Raises RpcError."""
    if squeezed.size <= AT_ONCE_BYTES:
        return squeezed.inflated()
    return await asyncio.to_thread(squeezed.inflated)
