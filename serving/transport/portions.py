"""What one connection sends is taken in portions: the others of the loop have their turns in between."""

from __future__ import annotations

import asyncio

from serving.transport.connection import Connection

MUCH = 64 << 10
"""Of one read, in bytes: there may be more. A loop reads on from a socket while there is, in the same turn."""


class Portioned(asyncio.Protocol):
    """A protocol whose `data_received` calls `let_others` when it left something, or took much; and is called again,
    with nothing, for what it left."""

    loop: asyncio.AbstractEventLoop
    connection: Connection
    _transport: asyncio.Transport | None = None
    _others_turn = False

    @property
    def may_read(self) -> bool:
        """The socket is not left alone for another reason."""
        return True

    @property
    def _open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def let_others(self) -> None:
        """Read on in the next turn of the loop."""
        if self._transport is not None and self._open and not self._others_turn:
            self._transport.pause_reading()
            self._others_turn = True
            self.loop.call_soon(self._own_turn)

    def _own_turn(self) -> None:
        self._others_turn = False
        self.read_on()

    def read_on(self) -> None:
        if self._open and self.may_read and not self._others_turn and self.connection.more:
            self.data_received(b"")
        if self._open and self.may_read and not self._others_turn and self._transport is not None:
            self._transport.resume_reading()
