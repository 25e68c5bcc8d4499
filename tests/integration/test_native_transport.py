"""The native server on real sockets: hostile peers, other clients meanwhile, and what stays behind."""

import asyncio
import gc
import time
from contextlib import asynccontextmanager

import pytest

from serving.transport import Code, RpcError, ServerOptions, Transport, channel, frames
from serving.transport.call import Head, frame_message, request_prefix
from serving.transport.frames import ErrorCode, FrameReader, Setting
from serving.transport.hpack import Decoder, encode
from serving.transport.native_server import NativeServer

ECHO = "/test.Echo/Echo"
BIG = "/test.Echo/Big"
HELLO = frames.PREFACE + frames.settings({})


async def later(payload, call):
    await asyncio.sleep(0)
    return payload


@asynccontextmanager
async def serving(options=None):
    made = NativeServer(options or ServerOptions())
    made.add_bytes_handler(ECHO, lambda payload, call: payload)
    made.add_bytes_handler(BIG, lambda payload, call: b"x" * 1_000_000)
    made.add_bytes_handler("/test.Echo/Later", later)
    port = made.add_port("127.0.0.1:0")
    await made.start()
    try:
        yield made, port
    finally:
        await made.stop(0)


@asynccontextmanager
async def raw(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def request(stream_id, path, message=b""):
    block = request_prefix(path, "test")
    data = frames.frame(frames.DATA, frames.END_STREAM, stream_id, frame_message(message))
    return frames.headers(stream_id, block, False) + data


async def until_closed(reader):
    """All frames until the server closes."""
    try:
        async with asyncio.timeout(10):
            received = await reader.read(-1)
    except ConnectionError:
        return []
    return FrameReader(frames.MAX_FRAME_BYTES).feed(received)


async def first_block(reader):
    """The first header block that the server sends."""
    received, frame_reader = [], FrameReader()
    async with asyncio.timeout(10):
        while not (blocks := [payload for kind, _, _, payload in received if kind == frames.HEADERS]):
            received += frame_reader.feed(await reader.read(1 << 16))
    return blocks[0]


async def slowest_s(client, calls=100):
    """The slowest of some calls of another client."""
    slowest = 0.0
    for _ in range(calls):
        begun = time.perf_counter()
        assert await client.unary(ECHO, b"x" * 300, 5) == b"x" * 300
        slowest = max(slowest, time.perf_counter() - begun)
    return slowest


ATTACKS = {
    "garbage": b"\x16\x03\x01\x02\x00" * 100,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "rapid reset": HELLO + b"".join(request(n, ECHO)[:-14] + frames.rst_stream(n, ErrorCode.CANCEL)
        for n in range(1, 9000, 2)),
    "ping flood": HELLO + frames.frame(frames.PING, 0, 0, b"12345678") * 5000,
    "settings flood": HELLO + frames.settings({}) * 5000,
    "continuation flood": HELLO + frames.frame(frames.HEADERS, 0, 1, b"")
    + frames.frame(frames.CONTINUATION, 0, 1, b"") * 1000,
    "a frame too large": HELLO + frames.header(1 << 20, frames.DATA, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
async def test_an_attack_ends_in_a_counted_close_and_delays_nobody(attack, caplog):
    async with serving() as (made, port), raw(port) as (reader, writer):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await slowest_s(client, 1)
        writer.write(attack)
        meanwhile_s = await slowest_s(client)
        await until_closed(reader)
        await slowest_s(client, 1)
        assert sum(made.closed_for.values()) == 1
        assert meanwhile_s < 1.0
        assert not made.calls
        await client.close()
    assert not caplog.records


async def test_a_stalled_window_delays_nobody_and_is_closed_in_time():
    async with serving() as (made, port), raw(port) as (_, writer):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        writer.write(HELLO + frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}))
        writer.write(b"".join(request(number, BIG) for number in range(1, 201, 2)))
        assert await slowest_s(client) < 1.0
        stalled = next(item for item in made._connections if item.connection.pending_bytes)
        assert stalled.connection.pending_bytes < 18 << 20  # of a hundred replies of a megabyte
        now = asyncio.get_running_loop().time()
        stalled.tick(now)
        for _ in range(100):
            stalled.data_received(frames.frame(0xEE, 0, 0))  # alive, and still not reading
        stalled.tick(now + 61)
        await slowest_s(client, 5)
        assert made.closed_for
        assert stalled not in made._connections
        await client.close()


async def test_a_client_that_does_not_read_its_socket_is_not_read_either():
    async with serving() as (made, port), raw(port) as (_, writer):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        writer.transport.pause_reading()
        wide = frames.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}) + frames.window_update(0, 1 << 30)
        writer.write(HELLO + wide)
        for number in range(1, 401, 2):
            writer.write(request(number, BIG))
        assert await slowest_s(client) < 1.0
        assert not made.calls
        await client.close()


async def test_a_request_that_never_ends_is_given_up_at_its_deadline():
    async with serving() as (made, port), raw(port) as (reader, writer):
        block = request_prefix(ECHO, "test") + encode(((b"grpc-timeout", b"200m"),))
        writer.write(HELLO + frames.headers(1, block, end_stream=False))
        begun = time.perf_counter()
        answer = await first_block(reader)
        assert time.perf_counter() - begun > 0.19
        assert Head(Decoder(tuple).decode(answer)).status().code is Code.DEADLINE_EXCEEDED
        assert not made.calls


async def test_silent_connections_are_closed():
    async with serving(ServerOptions(keepalive_s=5)) as (made, port), raw(port) as mute, raw(port) as idle:
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await slowest_s(client, 1)
        idle[1].write(HELLO)
        await slowest_s(client, 5)
        now = asyncio.get_running_loop().time()
        for protocol in list(made._connections):
            protocol.tick(now + 6)
            protocol.tick(now + 11)
        for reader, _ in (mute, idle):
            await until_closed(reader)
        assert not made._connections
        await client.close()


async def test_connections_beyond_the_limit_are_closed():
    async with serving(ServerOptions(max_connections=1)) as (made, port), raw(port) as (_, writer):
        writer.write(HELLO)
        await asyncio.sleep(0)
        async with raw(port) as (reader, _):
            await until_closed(reader)
        assert made.closed_for == {"too many connections": 1}


async def test_what_is_not_grpc_is_told_so():
    async with serving() as (_, port), raw(port) as (reader, writer):
        head = frames.headers(1, b"\x83\x86\x84", end_stream=True)
        writer.write(HELLO + head)
        received = FrameReader()
        async with asyncio.timeout(5):
            while not (heads := [item for item in received.feed(await reader.read(4096)) if item[0] == frames.HEADERS]):
                pass
        assert b"415" in heads[0][3]


@pytest.mark.parametrize("path", [ECHO, "/test.Echo/Later"])
async def test_many_calls_leave_nothing_behind(path):
    async with serving() as (made, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")

        async def calls(count):
            for _ in range(count // 50):
                await asyncio.gather(*(client.unary(path, b"x" * 300, 5) for _ in range(50)))

        await calls(500)
        gc.collect()
        before = len(gc.get_objects())
        await calls(5000)
        gc.collect()
        assert len(gc.get_objects()) - before < 1000
        assert not made.calls
        await client.close()


@pytest.mark.parametrize("path", [ECHO, "/test.Echo/Later"])
async def test_calls_end_without_work_for_the_garbage_collector(path):
    async with serving() as (_, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        stub = client.stub_channel.unary_unary(path)
        await slowest_s(client, 5)
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                assert await client.unary(path, b"x", 5) == await stub(b"x", timeout=5) == b"x"
            assert gc.collect() < 100
        finally:
            gc.enable()
        await client.close()


async def test_a_deadline_passes_while_a_connection_is_full():
    async with serving() as (_, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await slowest_s(client, 1)
        client._links[0].protocol.connection.peer_max_streams = 0
        with pytest.raises(RpcError) as caught:
            await client.unary(ECHO, b"", 0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        await client.close()
