"""Conversations that were damaged on their way, fed to a whole server and a whole client: every layer from frames to
handlers sees what is nearly right. Nothing may raise, be logged, or stay."""

from __future__ import annotations

import asyncio
import gzip

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.transport import RpcError, ServerOptions, frames
from serving.transport.call import OK_TRAILERS, RESPONSE_HEAD, encode_metadata, frame_message, trailers
from serving.transport.client_socket import ClientProtocol
from serving.transport.exchange import Exchange
from serving.transport.frames import ErrorCode, Setting, frame
from serving.transport.hpack import encode
from serving.transport.native_server import NativeServer
from serving.transport.port import ChannelOptions
from serving.transport.server_socket import ServerProtocol
from serving.transport.unary import RefusedError, UnaryCall
from tests.integration.http2_peer import ECHO, HELLO, LATER, NEVER, message, opening, request

STREAMING = "/test.Streams/Both"
METADATA = encode(encode_metadata((("k", "v"), ("raw-bin", b"\0\xff"), ("traceparent", "00-1-2-01"))))
SQUEEZED = gzip.compress(b"hello" * 100)
ASKED = (
    HELLO,
    frames.settings({Setting.INITIAL_WINDOW_SIZE: 100, Setting.MAX_FRAME_SIZE: 20_000, Setting.HEADER_TABLE_SIZE: 0}),
    frames.window_update(0, 1000),
    request(1, ECHO, b"hello"),
    opening(3, LATER, METADATA + encode(((b"grpc-timeout", b"10S"),))) + message(3, b"hello"),
    opening(5, ECHO, encode(((b"grpc-encoding", b"gzip"),))),
    frame(frames.DATA, frames.END_STREAM, 5, b"\1" + len(SQUEEZED).to_bytes(4, "big") + SQUEEZED),
    opening(7, STREAMING),
    message(7, b"one", end=False) + message(7, b"two", end=False),
    frame(frames.DATA, frames.PADDED, 7, b"\2" + frame_message(b"three")[:4] + b"\0\0"),
    frame(frames.DATA, 0, 7, frame_message(b"three")[4:]),
    frames.headers(7, encode(((b"x-trailer", b"1"),)), True),
    frame(frames.HEADERS, 0, 9, opening(9, NEVER)[9:20]) + frame(frames.CONTINUATION, frames.END_HEADERS, 9),
    opening(11, NEVER) + frames.rst_stream(11, ErrorCode.CANCEL),
    frame(frames.PING, 0, 0, b"12345678") + frame(frames.PRIORITY, 0, 13, b"\0\0\0\0\1"),
    request(15, "/no.Such/Method") + request(17, STREAMING, b"x"),
    frames.goaway(0, ErrorCode.NO_ERROR),
)
ANSWERED = (
    frames.settings({Setting.INITIAL_WINDOW_SIZE: 100, Setting.MAX_CONCURRENT_STREAMS: 100}),
    b"".join(frames.whole_response(1, RESPONSE_HEAD, frame_message(b"hello"), OK_TRAILERS)),
    frames.headers(3, RESPONSE_HEAD + METADATA, False),
    frame(frames.DATA, 0, 3, frame_message(b"one") + frame_message(b"two")[:3]),
    frame(frames.DATA, frames.PADDED, 3, b"\1" + frame_message(b"two")[3:] + b"\0"),
    frames.headers(3, trailers(0, "", (("raw-bin", b"\1"),)), True),
    frames.headers(5, RESPONSE_HEAD + trailers(5, "nobody ☺", ()), True),
    frames.headers(5, encode(((b":status", b"103"),)), False),
    frames.headers(5, RESPONSE_HEAD + encode(((b"content-length", b"10"),)), False),
    frame(frames.DATA, 0, 5, frame_message(b"five!")) + frames.headers(5, OK_TRAILERS, True),
    frames.window_update(0, 10) + frames.window_update(7, 10),
    frames.headers(7, encode(((b":status", b"503"),)), True),
    frames.rst_stream(9, ErrorCode.REFUSED_STREAM),
    frame(frames.PING, 0, 0, b"12345678") + frames.goaway(9, ErrorCode.NO_ERROR),
)
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.integers(1, 40)),
    st.tuples(st.just("insert"), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("repeat"), st.floats(0, 1, exclude_max=True), st.integers(1, 60)),
)


def damaged(text, place, kind, how):
    at = int(place * len(text))
    if kind == "flip":
        return text[:at] + bytes((text[at] ^ how,)) + text[at + 1 :]
    if kind == "cut":
        return text[:at] + text[at + how :]
    return text[:at] + (how if kind == "insert" else text[at : at + how]) + text[at:]


@st.composite
def conversations(draw, parts):
    """Parts left out, in another order or twice, and bytes changed."""
    chosen = draw(st.one_of(st.just(list(range(len(parts)))), st.lists(st.integers(0, len(parts) - 1), max_size=25)))
    text = b"".join(parts[number] for number in ([0, *chosen] if draw(st.booleans()) else chosen))
    for kind, place, how in draw(st.lists(DAMAGE, max_size=4)):
        if text:
            text = damaged(text, place, kind, how)
    step = draw(st.sampled_from([1, 7, 100, 1 << 20]))
    return [text[start : start + step] for start in range(0, len(text), step)]


class Wire(asyncio.Transport):
    """Takes everything; ends when told."""

    def __init__(self, protocol):
        super().__init__()
        self.protocol, self.closed = protocol, False
        protocol.connection_made(self)

    def write(self, data):
        assert not self.closed

    def is_closing(self):
        return self.closed

    def close(self):
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    async def carry(self, chunks):
        for chunk in chunks:
            if self.closed:
                break
            self.protocol.data_received(chunk)
            await asyncio.sleep(0)
        self.close()
        for _ in range(10):
            await asyncio.sleep(0)


async def both(requests, context):
    async for one in requests:
        yield one


async def at_a_server(chunks):
    failures = watched()
    made = NativeServer(ServerOptions(max_receive_bytes=10_000))
    made.add_bytes_handler(ECHO, lambda payload, call: payload)
    made.add_bytes_handler(LATER, later)
    made.add_bytes_handler(NEVER, never)
    made.registry.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Streams", {"Both": grpc.stream_stream_rpc_method_handler(both)}),)
    )
    await Wire(ServerProtocol(made)).carry(chunks)
    assert not (made.calls or made._connections or failures)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def later(payload, call):
    assert isinstance(call.metadata(), tuple)
    await asyncio.sleep(0)
    return payload


async def never(payload, call):
    await asyncio.Event().wait()


async def at_a_client(chunks):
    failures = watched()
    protocol = ClientProtocol(100.0)
    wire = Wire(protocol)
    unary = [UnaryCall(protocol, None, 10_000).begin(opening(1)[9:], frame_message(b"hello" * 50)) for _ in range(3)]
    streaming = [Exchange(ChannelOptions(max_receive_bytes=10_000), None) for _ in range(3)]
    for exchange in streaming:
        exchange.begin(protocol.connection, opening(1)[9:])
        exchange.send(b"x" * 200, end=False)
    await wire.carry(chunks)
    for reply in unary:
        assert reply.done()
        assert isinstance(reply.exception(), RpcError | RefusedError | None)
    assert all(exchange.done for exchange in streaming)
    assert not (protocol.connection.streams or failures)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def watched():
    """What callbacks raised."""
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    return failures


QUICK = settings(max_examples=200, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=20_000)


@pytest.mark.parametrize(("story", "parts"), [(at_a_server, ASKED), (at_a_client, ANSWERED)], ids=["server", "client"])
@pytest.mark.parametrize("how", [QUICK, pytest.param(LONG, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_a_damaged_conversation_raises_nothing_and_leaves_nothing(story, parts, how, caplog):
    @how
    @given(conversations(parts))
    def heard(chunks):
        asyncio.run(story(chunks))

    heard()
    assert not caplog.records
