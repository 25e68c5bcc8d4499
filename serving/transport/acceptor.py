"""Takes connections from a socket, which listens from then on. The event loop's own listeners tell nobody of those that
shake hands, and asyncio's lose those that they accept in the turn of the loop in which they are closed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import partial
from typing import Any, Protocol

from serving.transport.closing import Closing
from serving.transport.listening import begin
from serving.transport.server_socket import ServerProtocol
from serving.transport.watch import HANDSHAKE_S

_ACCEPTED_AT_ONCE = 2
"""In one turn of the loop: a flood of new connections must not hold up those that are served."""
_REST_S = 1.0
"""When no more connections can be accepted, as without free descriptors."""

Arriving = dict[ServerProtocol, asyncio.Task[None] | None]
"""What was accepted, with the handshake that may be cancelled. Without TLS it takes two turns of the loop, and uvloop
forgets to tell the protocol of one that is cancelled meanwhile."""


class Owner(Protocol):
    """The server that the connections are for. What connects is taken out of `arriving`."""

    arriving: Arriving

    def protocol(self) -> ServerProtocol: ...

    def takes_more(self) -> bool:
        """Whether there is room for one more connection."""

    def count(self, closing: Closing) -> None: ...

    def progressed(self) -> None: ...


class Acceptor:
    """Accepts until it is closed. The socket stays its maker's."""

    def __init__(self, owner: Owner, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        self._owner = owner
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._how: dict[str, Any] = {} if context is None else {"ssl": context, "ssl_handshake_timeout": HANDSHAKE_S}
        self._resting: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        begin(listening)
        self._listen()

    def close(self) -> None:
        self._loop.remove_reader(self._listening)
        if self._resting is not None:
            self._resting.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening)
                self._resting = self._loop.call_later(_REST_S, self._listen)
                return
            if self._owner.takes_more():
                self._take(accepted)
            else:
                accepted.close()

    def _take(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:  # asyncio does so only where the socket was made for TCP by number
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol = self._owner.protocol()
        task = asyncio.ensure_future(self._arrive(accepted, protocol))
        self._owner.arriving[protocol] = task if self._how else None
        task.add_done_callback(partial(self._arrived, accepted, protocol))

    async def _arrive(self, accepted: socket.socket, protocol: ServerProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, **self._how)
        except OSError:
            return  # as seen when it has not arrived

    def _arrived(self, accepted: socket.socket, protocol: ServerProtocol, task: asyncio.Task[None]) -> None:
        waited = self._owner.arriving.pop(protocol, None) is not None
        if task.cancelled():
            accepted.close()  # of a task that never began
        elif waited:
            self._owner.count(Closing.NO_TLS)
        self._owner.progressed()
