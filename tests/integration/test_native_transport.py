"""The native server and channel on real sockets: deadlines where nothing else moves, and what stays behind."""

import asyncio
import contextlib
import gc
import socket
import time

import pytest
import uvloop

from serving.frontdoor.answer import answering
from serving.telemetry.requests import RequestFigures
from serving.transport import Code, RpcError, ServerOptions, Transport, channel, frames
from serving.transport.call import Head
from serving.transport.frames import ErrorCode, Setting, rst_stream
from serving.transport.hpack import Decoder, encode
from serving.transport.native_server import NativeServer
from serving.transport.server_socket import ServerProtocol
from tests.integration.http2_peer import ECHO, HELLO, LATER, NEVER, opening, raw, request, serving


async def test_a_request_that_never_ends_is_given_up_at_its_deadline():
    async with serving() as (made, port), raw(port) as peer:
        begun = time.perf_counter()
        peer.send(HELLO, opening(1, ECHO, encode(((b"grpc-timeout", b"200m"),))))
        answer = await peer.until(frames.HEADERS)
        assert time.perf_counter() - begun > 0.19
        assert Head(Decoder(tuple).decode(answer.payload)).status().code is Code.DEADLINE_EXCEEDED
        assert not made.calls


@pytest.mark.parametrize("path", [ECHO, LATER])
async def test_calls_end_without_work_for_the_garbage_collector(path):
    async with serving() as (_, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        stub = client.stub_channel.unary_unary(path)
        await client.unary(path, b"x", 5)
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
        await client.unary(ECHO, b"", 5)
        client._links[0].protocol.connection.peer_max_streams = 0
        with pytest.raises(RpcError) as caught:
            await client.unary(ECHO, b"", 0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        await client.close()


@contextlib.asynccontextmanager
async def leaving_first(port):
    """A port that takes no call on its first connection, as a server that is being replaced; then it is the one at
    `port`."""
    first = True

    async def meet(reader, writer):
        nonlocal first
        if first:
            first = False
            writer.write(frames.frame(frames.SETTINGS, 0, 0, b"") + frames.goaway(0, frames.ErrorCode.NO_ERROR))
            await writer.drain()
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def pipe(source, sink):
        while data := await source.read(65_536):
            sink.write(data)
        sink.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("is_unary", [True, False], ids=["unary", "stub"])
async def test_a_call_that_a_leaving_server_never_saw_goes_to_its_successor(is_unary):
    async with serving() as (_, port), leaving_first(port) as address:
        client = channel(Transport.NATIVE, f"127.0.0.1:{address}")
        if is_unary:
            assert await client.unary(ECHO, b"x", 5) == b"x"
        else:
            assert await client.stub_channel.unary_unary(ECHO)(b"x", timeout=5) == b"x"
        await client.close()


@pytest.mark.parametrize("turns", range(5))
async def test_what_is_accepted_while_the_server_stops_is_closed(turns):
    """Wherever between the kernel and its first byte it is."""
    async with serving() as (made, port):
        with socket.create_connection(("127.0.0.1", port)) as peer:
            for _ in range(turns):
                await asyncio.sleep(0)
            await made.stop(0.0)
            assert not made._connections
            peer.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(65_536):
                    pass


class FullSocket(asyncio.Transport):
    """Takes output, of which so much waits as the test says."""

    def __init__(self, unsent):
        super().__init__()
        self.unsent, self.reads, self.aborted = unsent, True, False

    def write(self, data):
        pass

    def get_write_buffer_size(self):
        return self.unsent

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


def with_a_full_socket():
    made = NativeServer(ServerOptions(keepalive_s=5))
    protocol, wire = ServerProtocol(made), FullSocket(100_000)
    protocol.connection_made(wire)
    protocol.data_received(HELLO)
    protocol.pause_writing()
    assert not wire.reads
    return protocol, wire, asyncio.get_running_loop().time()


async def test_a_slow_reader_is_not_taken_for_silent_while_nobody_reads_it():
    protocol, wire, begun = with_a_full_socket()
    for second in range(1, 300):
        wire.unsent -= 1
        protocol.tick(begun + second)
        assert not wire.aborted
    protocol.resume_writing()
    assert wire.reads
    protocol.tick(begun + 9)
    assert not wire.aborted
    protocol.tick(begun + 12)
    assert protocol.connection.closed_reason == "silent"


async def test_a_reader_that_takes_nothing_is_given_up():
    protocol, wire, begun = with_a_full_socket()
    for second in range(1, 61):
        protocol.tick(begun + second)
        assert not wire.aborted
    protocol.tick(begun + 62)
    assert wire.aborted
    assert protocol.connection.closed_reason == "stalled"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_no_reply_waits_for_the_acknowledgement_of_the_one_before(run):
    """Nagle's algorithm and delayed acknowledgements together cost a stream 40 ms a message."""

    async def story():
        async with serving() as (made, port), raw(port) as peer:
            peer.send(HELLO)
            await peer.alive()
            (accepted,) = [protocol._transport.get_extra_info("socket") for protocol in made._connections]
            return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert run(story())


# --- calls that wait for room on a full connection ---


@contextlib.asynccontextmanager
async def full():
    """A channel whose one connection takes one call, which runs and can be ended."""
    async with serving() as (_, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await client.unary(ECHO, b"", 5)
        protocol = client._links[0].protocol
        protocol.connection.peer_max_streams = 1
        running = asyncio.ensure_future(client.unary(NEVER, b"", 30))
        while not protocol.full:
            await asyncio.sleep(0)
        yield client, protocol, running
        await client.close()


async def waiting(client, protocol, count):
    calls = [asyncio.ensure_future(client.unary(ECHO, b"%d" % number, 30)) for number in range(count)]
    while len(protocol.waiting) < count:
        await asyncio.sleep(0)
    return calls


async def ends(call):
    call.cancel()
    await asyncio.wait((call,))


async def test_the_room_of_a_waiter_that_was_woken_and_cancelled_is_the_next_ones():
    async with full() as (client, protocol, running):
        first, second = await waiting(client, protocol, 2)
        (stream,) = protocol.connection.streams.values()
        protocol.data_received(frames.rst_stream(stream.id, frames.ErrorCode.CANCEL))
        assert len(protocol.waiting) == 1  # the first is woken, but has not run
        first.cancel()
        assert await asyncio.wait_for(second, 5) == b"1"
        await asyncio.gather(first, running, return_exceptions=True)


async def test_a_waiter_that_was_cancelled_waits_no_more():
    async with full() as (client, protocol, running):
        first, second = await waiting(client, protocol, 2)
        await ends(first)
        assert len(protocol.waiting) == 1
        await ends(running)
        assert await asyncio.wait_for(second, 5) == b"1"


async def test_a_server_that_allows_more_streams_wakes_those_that_wait():
    async with full() as (client, protocol, running):
        calls = await waiting(client, protocol, 3)
        protocol.data_received(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 3}))
        assert await asyncio.wait_for(asyncio.gather(*calls), 5) == [b"0", b"1", b"2"]
        assert not running.done()
        running.cancel()


@pytest.mark.parametrize("begun", [False, True], ids=["in the turn of its request", "later"])
async def test_a_call_that_is_given_up_is_counted_once_whether_its_handler_began_or_not(begun):
    entered = asyncio.Event()

    async def never(payload):
        entered.set()
        await asyncio.Event().wait()

    figures = RequestFigures().of("test", "Door")
    async with serving() as (server, port), raw(port) as peer:
        server.add_bytes_handler("/test.Door/Never", answering(lambda payload, call: never(payload), figures))
        peer.send(HELLO, request(1, "/test.Door/Never"))
        if begun:
            await entered.wait()
        peer.send(rst_stream(1, ErrorCode.CANCEL))
        await peer.alive()
    ended = {code: dict(took.cumulative())["+Inf"] for code, took in figures.seconds.items()}
    assert (figures.running, ended) == (0, {Code.OK: 0, Code.CANCELLED: 1})
