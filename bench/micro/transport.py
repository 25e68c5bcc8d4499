"""What one call costs the native transport, without sockets: 32 calls come in one read and leave in one write."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

from serving.transport import ChannelOptions, ServerOptions, frames
from serving.transport.call import (
    OK_TRAILERS,
    RESPONSE_HEAD,
    Head,
    encode_metadata,
    frame_message,
    request_prefix,
    timeout_field,
)
from serving.transport.client_socket import ClientProtocol
from serving.transport.frames import END_STREAM, FrameReader
from serving.transport.hpack import Decoder, encode
from serving.transport.native_client import NativeChannel
from serving.transport.native_server import NativeServer
from serving.transport.server_socket import ServerProtocol

Step = Callable[[], object]

_PATH = "/bench.Echo/Echo"
_MESSAGE = BytesValue(value=os.urandom(297)).SerializeToString()
_CALLS = 32
_TURNS = 300
_WIDE = frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 1 << 20}) + frames.window_update(0, 1 << 30)
_PREFIX = request_prefix(_PATH, "127.0.0.1:50051")


def frames_of_32_requests() -> Step:
    """A read of 32 requests cut into frames."""
    read, reader = _reads([_PREFIX] * _CALLS)[0], FrameReader()
    return lambda: reader.feed(read)


def block_repeated() -> Step:
    """A header block like the one before, to a head."""
    decoder = Decoder(Head)
    return lambda: decoder.decode(_PREFIX)


def block_of_literals() -> Step:
    """A header block with another deadline and trace id than the one before, nothing indexed."""
    decoder, blocks = Decoder(Head), itertools.cycle(_literal_blocks())
    return lambda: decoder.decode(next(blocks))


def block_of_grpcio() -> Step:
    """The same as grpcio's client sends it: the deadline is put into the dynamic table, the trace id is not."""
    decoder, blocks = Decoder(Head), itertools.cycle(_grpcio_blocks())
    return lambda: decoder.decode(next(blocks))


def server_32_calls() -> Step:
    """32 calls of a bytes handler, equal header blocks."""
    return _served([_PREFIX] * _CALLS * _TURNS)


def server_32_calls_heads_first() -> Step:
    """32 calls of a bytes handler, equal header blocks, all heads before all data: as h2load and others send them."""
    return _served([_PREFIX] * _CALLS * _TURNS, heads_first=True)


def server_32_calls_of_literals() -> Step:
    """32 calls of a bytes handler, another deadline and trace id in each."""
    return _served(_literal_blocks())


def server_32_calls_of_grpcio() -> Step:
    """32 calls of a bytes handler, another deadline and trace id in each, as grpcio's client sends them."""
    return _served(_grpcio_blocks())


def servicer_32_calls() -> Step:
    """32 calls of a servicer's coroutine with protobuf messages, a task each, equal header blocks."""
    return _served([_PREFIX] * _CALLS * _TURNS, servicer=True)


def client_32_calls() -> Step:
    """32 calls at once of a channel, a task each, without a deadline."""
    return _called(None, ())


def client_32_calls_with_deadline_and_metadata() -> Step:
    """32 calls at once of a channel, a task each, with a deadline and a trace id."""
    return _called(5.0, (("traceparent", _trace().decode()),))


class _Wire(asyncio.Transport):
    """A socket that takes everything."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        """Nobody reads it."""


class _Responder(_Wire):
    """A socket with a server behind it that answers what came in one write in one read, from prepared bytes."""

    protocol: asyncio.Protocol

    def __init__(self) -> None:
        super().__init__()
        self._first, self._loop = 1, asyncio.get_running_loop()

    def write(self, data: Any) -> None:
        count = data.count(_MESSAGE)
        numbers = range(self._first, self._first + 2 * count, 2)
        self._first += 2 * count
        framed = frame_message(_MESSAGE)
        answers = [frames.whole_response(number, RESPONSE_HEAD, framed, OK_TRAILERS) for number in numbers]
        read = frames.window_update(0, count * len(framed)) + b"".join(itertools.chain(*answers)) if count else b""
        self._loop.call_soon(self.protocol.data_received, read)


def _trace() -> bytes:
    return b"00-%s-00f067aa0ba902b7-01" % os.urandom(16).hex().encode()


def _literal_blocks() -> list[bytes]:
    return [
        _PREFIX
        + timeout_field(5 + number % 997 / 1000)
        + encode(encode_metadata((("traceparent", _trace().decode()),)))
        for number in range(_CALLS * _TURNS)
    ]


def _grpcio_blocks() -> list[bytes]:
    """Every field but the trace id is inserted once; then each deadline, which moves the others further back."""
    fields = ((b":path", _PATH.encode()), (b":authority", b"127.0.0.1:50051"), (b"content-type", b"application/grpc"),
        (b"te", b"trailers"), (b"grpc-accept-encoding", b"identity, deflate, gzip"),
        (b"user-agent", b"grpc-python-asyncio/1.81.1 grpc-c/54.0.0 (linux; chttp2)"))  # fmt: skip
    inserted = b"".join(_inserted(name, value) for name, value in fields)
    blocks = []
    for number in range(_CALLS * _TURNS):
        ahead = number % 50
        known = bytes(range(0xBE + ahead + 5, 0xBE + ahead - 1, -1)) if ahead else inserted
        trace = encode(((b"traceparent", _trace()),))
        blocks.append(b"\x83\x86" + known + _inserted(b"grpc-timeout", b"%dm" % (5000 + number % 997)) + trace)
    return blocks


def _inserted(name: bytes, value: bytes) -> bytes:
    """A literal that is put into the dynamic table."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


def _reads(blocks: list[bytes], heads_first: bool = False) -> list[bytes]:
    data = frame_message(_MESSAGE)
    requests = [
        (frames.headers(number, block, False), frames.frame(frames.DATA, END_STREAM, number, data))
        for number, block in zip(itertools.count(1, 2), blocks)
    ]
    read_at_once = [requests[first : first + _CALLS] for first in range(0, len(requests), _CALLS)]
    if heads_first:
        return [b"".join(itertools.chain(*zip(*calls, strict=True))) for calls in read_at_once]
    return [b"".join(itertools.chain(*calls)) for calls in read_at_once]


def _served(blocks: list[bytes], servicer: bool = False, heads_first: bool = False) -> Step:
    loop, reads = asyncio.new_event_loop(), _reads(blocks, heads_first)

    async def echo(request: BytesValue, context: Any) -> BytesValue:
        return BytesValue(value=request.value)

    async def connected() -> ServerProtocol:
        server = NativeServer(ServerOptions())
        codec: Any = (BytesValue.FromString, BytesValue.SerializeToString)
        handler = grpc.unary_unary_rpc_method_handler(echo, *codec)
        if servicer:
            server.registry.add_registered_method_handlers("bench.Echo", {"Echo": handler})
        else:
            server.add_bytes_handler(_PATH, lambda payload, call: payload)
        protocol = ServerProtocol(server)
        protocol.connection_made(_Wire())
        protocol.data_received(frames.PREFACE + _WIDE)
        return protocol

    def turns() -> Iterator[None]:
        while True:
            protocol = loop.run_until_complete(connected())
            for read in reads:
                protocol.data_received(read)
                yield

    calls = turns()
    if not servicer:
        return lambda: next(calls)
    return lambda: (next(calls), loop.run_until_complete(asyncio.sleep(0)))


def _called(timeout_s: float | None, metadata: Any) -> Step:
    loop = asyncio.new_event_loop()

    async def connected() -> NativeChannel:
        channel, protocol, wire = NativeChannel("127.0.0.1:1", ChannelOptions()), ClientProtocol(60.0), _Responder()
        wire.protocol = protocol
        protocol.connection_made(wire)
        protocol.data_received(_WIDE)
        channel._links[0].protocol = protocol  # noqa: SLF001 - nothing listens to which it could connect
        return channel

    channel = loop.run_until_complete(connected())

    async def calls() -> None:
        await asyncio.gather(*(channel.unary(_PATH, _MESSAGE, timeout_s, metadata) for _ in range(_CALLS)))

    return lambda: loop.run_until_complete(calls())
