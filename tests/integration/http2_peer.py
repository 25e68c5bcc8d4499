"""A peer that writes HTTP/2 byte by byte, by the rules or against them, and reads what comes back frame by frame."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from serving.certificates import make_authority, make_certificate
from serving.transport import (
    Channel,
    ChannelCredentials,
    ChannelOptions,
    ServerCredentials,
    ServerOptions,
    Transport,
    channel,
    frames,
)
from serving.transport.call import frame_message, request_prefix
from serving.transport.frames import ErrorCode, FrameReader
from serving.transport.native_server import NativeServer

ECHO = "/test.Echo/Echo"
LATER = "/test.Echo/Later"
BIG = "/test.Echo/Big"
NEVER = "/test.Echo/Never"
HELLO = frames.PREFACE + frames.settings({})
_PATIENCE_S = 10
_USUAL = ChannelOptions()


class Wire(NamedTuple):
    """What servers and peers of a test speak below HTTP/2; nothing without credentials."""

    server: ServerCredentials | None = None
    peer: ssl.SSLContext | None = None
    channel: ChannelCredentials | None = None


_wires = [Wire()]


@contextmanager
def over(wire: Wire) -> Iterator[None]:
    """Meanwhile all servers and peers are made on this wire."""
    _wires.append(wire)
    try:
        yield
    finally:
        _wires.pop()


def tls_wire(folder: Path) -> Wire:
    make_authority(folder, "test")
    make_certificate(folder, "shop", ["127.0.0.1"])
    peer = ssl.create_default_context(cafile=folder / "ca.pem")
    peer.set_alpn_protocols(["h2"])
    credentials = ServerCredentials(folder / "shop.pem", folder / "shop.key")
    return Wire(credentials, peer, ChannelCredentials(folder / "ca.pem"))


class Received(NamedTuple):
    """A frame of the server."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        ended = self.kind in {frames.DATA, frames.HEADERS} and bool(self.flags & frames.END_STREAM)
        return ended or self.kind == frames.RST_STREAM


class Peer:
    """Owns one raw connection. `frames_received` holds all that came, in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames_received: list[Received] = []
        self.closed = False
        self._splitter = FrameReader(frames.MAX_FRAME_BYTES, 1 << 20)
        self._seen = 0

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def end(self) -> None:
        """Say nothing more. TLS ends both ways."""
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            self.writer.close()

    async def preface(self) -> None:
        """Of a client, which says it first."""
        assert await self.reader.readexactly(len(frames.PREFACE)) == frames.PREFACE

    async def next_frame(self) -> Received | None:
        """None once the server has closed."""
        while self._seen == len(self.frames_received):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    received = await self.reader.read(1 << 16)
            except (ConnectionError, ssl.SSLError):
                received = b""
            if not received:
                self.closed = True
                return None
            self.frames_received += [Received(*item) for item in self._splitter.feed(received)]
        self._seen += 1
        return self.frames_received[self._seen - 1]

    async def until(self, kind: int, flags: int = 0, stream_id: int | None = None) -> Received:
        """The next frame of this kind, with at least these flags. Fails if the server closes first."""
        while (received := await self.next_frame()) is not None:
            wanted = received.kind == kind and received.flags & flags == flags
            if wanted and stream_id in {None, received.stream_id}:
                return received
        raise AssertionError(f"closed after {self.frames_received}")

    async def until_ended(self, stream_id: int) -> list[Received]:
        """The frames of this stream, up to its end."""
        while True:
            mine = [received for received in self.frames_received[: self._seen] if received.stream_id == stream_id]
            if mine and mine[-1].ends_stream:
                return mine
            assert await self.next_frame() is not None, f"closed after {self.frames_received}"

    async def until_closed(self) -> list[Received]:
        while await self.next_frame() is not None:
            pass
        return self.frames_received

    async def goaway(self) -> ErrorCode:
        """Why the server ends the connection; it must close as well."""
        await self.until_closed()
        last = self.frames_received[-1]
        assert last.kind == frames.GOAWAY, self.frames_received
        return ErrorCode(frames.word(last.payload, 4))

    async def alive(self) -> None:
        """Fails unless the connection still answers."""
        self.send(frames.frame(frames.PING, 0, 0, b"areyouup"))
        while (await self.until(frames.PING, frames.ACK)).payload != b"areyouup":
            pass


async def _later(payload: bytes, call: object) -> bytes:
    await asyncio.sleep(0)
    return payload


async def _never(payload: bytes, call: object) -> bytes:
    await asyncio.Event().wait()
    return payload


@asynccontextmanager
async def serving(options: ServerOptions | None = None) -> AsyncIterator[tuple[NativeServer, int]]:
    """A server and its port. `NEVER` answers when its call is cancelled."""
    made = NativeServer(options or ServerOptions())
    made.add_bytes_handler(ECHO, lambda payload, call: payload)
    made.add_bytes_handler(BIG, lambda payload, call: b"x" * 1_000_000)
    made.add_bytes_handler(LATER, _later)
    made.add_bytes_handler(NEVER, _never)
    port = made.add_port("127.0.0.1:0", _wires[-1].server)
    await made.start()
    try:
        yield made, port
    finally:
        await made.stop(0)


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_wires[-1].peer)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


def polite(port: int, options: ChannelOptions = _USUAL) -> Channel:
    """A client that keeps the rules."""
    return channel(Transport.NATIVE, f"127.0.0.1:{port}", replace(options, credentials=_wires[-1].channel))


@asynccontextmanager
async def scripted(meet: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a server that deals with each connection as told, and then closes it. Its frames are the client's,
    once it has read the preface."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await meet(Peer(reader, writer))
        writer.close()

    met: list[asyncio.StreamWriter] = []
    secured = _wires[-1].server
    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=secured and secured.context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in met:
            writer.transport.abort()
        await listener.wait_closed()


def opening(stream_id: int, path: str = NEVER, more: bytes = b"", end: bool = False) -> bytes:
    """HEADERS of a call; `more` is appended to its block."""
    return frames.headers(stream_id, request_prefix(path, "test") + more, end)


def message(stream_id: int, payload: bytes = b"", end: bool = True) -> bytes:
    return frames.frame(frames.DATA, frames.END_STREAM if end else 0, stream_id, frame_message(payload))


def request(stream_id: int, path: str = ECHO, payload: bytes = b"") -> bytes:
    return opening(stream_id, path) + message(stream_id, payload)
