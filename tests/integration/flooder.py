"""A process that floods a port: `python flooder.py PORT KIND`. Says "flooding" once it does, and never ends."""

from __future__ import annotations

import selectors
import socket
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONNECTIONS = 4


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


HELLO = PREFACE + frame(4, 0, 0)
HEAD = b"\x83\x86" + b"".join(
    literal(name, value)
    for name, value in ((b":path", b"/test.Echo/Echo"), (b"te", b"trailers"), (b"content-type", b"application/grpc"))
)


def of_streams(*parts) -> bytes:
    """The parts for as many streams as a connection may open in a minute at most."""
    return b"".join(part(number) for number in range(1, 100_001, 2) for part in parts)


def call(number: int) -> bytes:
    return frame(1, 4, number, HEAD) + frame(0, 1, number, b"\0\0\0\1\x2c" + b"x" * 300)


FLOODS = {
    "calls": lambda: HELLO + frame(8, 0, 0, (1 << 30).to_bytes(4, "big")) + of_streams(call),
    "resets": lambda: HELLO + of_streams(lambda number: frame(1, 4, number, HEAD) + frame(3, 0, number, b"\0\0\0\x08")),
    "pings": lambda: HELLO + frame(6, 0, 0, b"12345678") * 100_000,
    "garbage": lambda: PREFACE + b"\xff" * 1_000_000,
    "bombs": lambda: (
        HELLO
        + frame(1, 5, 1, HEAD + b"\x40\x01k\x7f\x81\x1f" + b"v" * 4096)
        + b"".join(frame(1, 5, number, b"\xbe" * 16_000) for number in range(3, 203, 2))
    ),
    "settings": lambda: (
        HELLO
        + b"".join(frame(1, 4, number, HEAD) for number in range(1, 2001, 2))
        + frame(4, 0, 0, b"\0\4\0\0\0\1\0\4\0\0\0\2" * 1300) * 200
    ),
    "connections": lambda: b"",
}


ENDLESS = {"calls", "connections"}
"""Floods that begin anew when all is sent; the others wait for the server to close the connection."""


class Source:
    """One connection at a time, and what it has still to send."""

    def __init__(self, port: int, text: bytes, selector: selectors.DefaultSelector, again: bool) -> None:
        self.port = port
        self.text = text
        self.again = again
        self.selector = selector
        self.connect()

    def connect(self) -> None:
        self.left = memoryview(self.text)
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setblocking(False)
        self.selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def ready(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not self.socket.recv(1 << 18):
                raise ConnectionResetError
            if self.left:
                self.left = self.left[self.socket.send(self.left[: 1 << 18]) :]
            if not self.left and self.again:
                raise ConnectionResetError
            if not self.left:
                self.selector.modify(self.socket, selectors.EVENT_READ, self)
        except BlockingIOError:
            pass
        except OSError:
            self.selector.unregister(self.socket)
            self.socket.close()
            self.connect()


def main(port: int, kind: str) -> None:
    selector = selectors.DefaultSelector()
    text = FLOODS[kind]()
    for _ in range(_CONNECTIONS):
        Source(port, text, selector, kind in ENDLESS)
    print("flooding", flush=True)
    while True:
        for key, events in selector.select():
            key.data.ready(events)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
