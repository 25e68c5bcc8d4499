"""What a supervisor hands to a worker that it starts: listening sockets, a seat where workers count together, and a
pipe on which the worker tells how far it is. Descriptors are inherited under their own numbers."""

from __future__ import annotations

import os
import socket
from enum import Enum

import msgspec

from serving.shared_counts import Seat


class Progress(Enum):
    """What a worker says. The end of the pipe is the end of the worker."""

    LISTENING = b"l"
    READY = b"r"


class Handover(msgspec.Struct, frozen=True):
    """`sockets` by the name of the port; a port that is missing is bound by the worker. `seat`: where the worker counts
    together with the others."""

    sockets: dict[str, int] = {}
    progress: int = -1
    seat: Seat | None = None

    def encoded(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def decoded(cls, text: str) -> Handover:
        return msgspec.json.decode(text, type=cls)

    def taken(self) -> dict[str, socket.socket]:
        """The sockets, now owned by the caller."""
        return {name: socket.socket(fileno=number) for name, number in self.sockets.items()}

    def tell(self, progress: Progress) -> None:
        if self.progress >= 0:
            os.write(self.progress, progress.value)  # one byte never waits
