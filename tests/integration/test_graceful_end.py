"""The end of a server as its clients see it: connections that come while it stops, calls that it never served."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest
import uvloop

from serving.certificates import make_authority, make_certificate
from serving.transport import (
    ChannelCredentials,
    ChannelOptions,
    Code,
    RpcError,
    ServerCredentials,
    ServerOptions,
    Transport,
    channel,
    frames,
)
from serving.transport.frames import ErrorCode
from serving.transport.native_server import NativeServer
from tests.integration.http2_peer import ECHO, HELLO, Peer, request, serving

LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
FAREWELL = frames.settings({}) + frames.goaway(0, ErrorCode.NO_ERROR)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder, "test")
    make_certificate(folder, "shop", ["127.0.0.1"])
    return ServerCredentials(folder / "shop.pem", folder / "shop.key"), ChannelCredentials(folder / "ca.pem")


@pytest.fixture
def no_leak():
    """Fails on sockets and transports that nobody closed."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert not [str(item.message) for item in seen if item.category is ResourceWarning]


def dialled(port):
    """A connection that the server has not accepted yet."""
    return socket.create_connection(("127.0.0.1", port))


@LOOPS
@pytest.mark.parametrize("turns", range(6))
def test_a_connection_that_comes_with_the_stop_is_told_and_its_call_is_served(run, turns, no_leak):
    """As long as it was accepted at all: what the loop did not accept is the next server's."""

    async def story():
        async with serving() as (made, port):
            client = dialled(port)
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping = asyncio.ensure_future(made.stop(5))
            peer = Peer(*await asyncio.open_connection(sock=client))
            peer.send(HELLO, request(1))
            try:
                first = await peer.until(frames.GOAWAY)
            except AssertionError:
                peer.writer.close()
                return False
            peer.send(frames.frame(frames.PING, frames.ACK, 0, (await peer.until(frames.PING)).payload))
            assert frames.word(first.payload) == frames.MAX_STREAM_ID
            answer = await peer.until_ended(1)
            assert [item.kind for item in answer] == [frames.HEADERS, frames.DATA, frames.HEADERS]
            assert frames.word((await peer.until(frames.GOAWAY)).payload) == 1
            await peer.until_closed()
            await stopping
            peer.writer.close()
            return True

    assert run(story()) or turns < 3


@LOOPS
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("turns", range(5))
def test_an_abrupt_stop_closes_what_is_being_accepted(run, turns, secured, certificates, no_leak):
    async def story():
        made = NativeServer(ServerOptions())
        port = made.add_port("127.0.0.1:0", certificates[0] if secured else None)
        await made.start()
        clients = [dialled(port) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await made.stop(0)
        for client in clients:
            client.close()
        assert not made.arriving
        assert not made._connections

    run(story())


@LOOPS
def test_a_handshake_that_runs_when_the_server_stops_is_finished_and_told(run, certificates, no_leak):
    async def story():
        made = NativeServer(ServerOptions())
        made.add_bytes_handler(ECHO, lambda payload, call: payload)
        port = made.add_port("127.0.0.1:0", certificates[0])
        await made.start()
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}", ChannelOptions(credentials=certificates[1]))
        calling = asyncio.ensure_future(client.unary(ECHO, b"x", 5))
        while not made.arriving:
            await asyncio.sleep(0)
        await made.stop(5)
        assert not made.closed_for.keys() - {"the peer closed the connection"}
        with pytest.raises(RpcError) as caught:
            await calling
        assert caught.value.code is Code.UNAVAILABLE
        await client.close()

    run(story())


async def test_connections_that_shake_hands_count_as_connections(certificates):
    made = NativeServer(ServerOptions(max_connections=2))
    port = made.add_port("127.0.0.1:0", certificates[0])
    await made.start()
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    while len(made.arriving) < 2:
        await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    assert made.closed_for == {"too many connections": 1}
    await made.stop(0)
    for one in (*silent, (reader, writer)):
        one[1].close()


async def test_a_server_without_descriptors_accepts_again_later(monkeypatch):
    from serving.transport import acceptor

    monkeypatch.setattr(acceptor, "_REST_S", 0.01)
    async with serving() as (made, port):
        [door] = made._acceptors
        real, door._listening = door._listening, NoDescriptors(door._listening)
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        calling = asyncio.ensure_future(client.unary(ECHO, b"x", 20))
        while door._listening.asked < 2:
            await asyncio.sleep(0.01)
        door._listening = real
        assert await calling == b"x"
        await client.close()


class NoDescriptors:
    """A socket of a process whose table of descriptors is full."""

    def __init__(self, listening):
        self._listening, self.asked = listening, 0

    def fileno(self):
        return self._listening.fileno()

    def accept(self):
        self.asked += 1
        raise OSError(24, "Too many open files")


# --- the client ---


class Successive:
    """Predecessors that deal with one connection each, in order, and then a real server on the same socket."""

    def __init__(self, predecessors):
        self.left = list(predecessors)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.made = NativeServer(ServerOptions())
        self.made.add_bytes_handler(ECHO, lambda payload, call: payload)

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, sock=self.socket.dup(), backlog=1)
        self.client = channel(Transport.NATIVE, f"127.0.0.1:{self.port}")
        return self

    async def _accept(self, reader, writer):
        if len(self.left) == 1:
            self.listener.close()
            self.made.add_socket(self.socket)
            await self.made.start()
        await self.left.pop(0)(Peer(reader, writer))
        writer.close()

    async def __aexit__(self, *_):
        await self.client.close()
        self.listener.close()
        await self.made.stop(0)
        self.socket.close()


async def closes(peer):
    """Without a word."""


async def says_goodbye_at_once(peer):
    peer.send(FAREWELL)


async def refuses_what_it_took(peer):
    """With a GOAWAY whose last stream came before the call."""
    await reads_a_call(peer)
    peer.send(frames.goaway(0, ErrorCode.NO_ERROR))


async def forgets_what_it_took(peer):
    await reads_a_call(peer)


async def reads_a_call(peer):
    peer.send(frames.settings({}))
    await peer.reader.readexactly(len(frames.PREFACE))
    await peer.until(frames.DATA)


UNSERVED = [closes, says_goodbye_at_once, refuses_what_it_took]


@pytest.mark.parametrize("second", UNSERVED)
@pytest.mark.parametrize("first", UNSERVED)
@pytest.mark.parametrize("is_unary", [True, False], ids=["unary", "stub"])
async def test_a_call_that_no_server_took_is_served_by_the_next(first, second, is_unary):
    async with Successive([first, second]) as servers:
        client = servers.client
        call = client.unary(ECHO, b"x", 20) if is_unary else client.stub_channel.unary_unary(ECHO)(b"x", timeout=20)
        assert await call == b"x"
        assert not servers.left


@LOOPS
def test_the_pause_before_the_next_server_is_waited_out_on_either_loop(run):
    """uvloop's timers may go off before their time."""

    async def served():
        async with Successive([closes, closes]) as servers:
            return await servers.client.unary(ECHO, b"x", 20)

    async def story():
        assert await asyncio.gather(*(served() for _ in range(20))) == [b"x"] * 20

    run(story())


async def test_waiting_for_the_next_server_ends_with_the_deadline():
    async with Successive([closes] * 9) as servers:
        with pytest.raises(RpcError) as caught:
            await servers.client.unary(ECHO, b"x", 0.02)
        assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_call_that_may_have_been_served_is_not_sent_again():
    async with Successive([forgets_what_it_took]) as servers:
        with pytest.raises(RpcError) as caught:
            await servers.client.unary(ECHO, b"x", 20)
        assert caught.value.code is Code.UNAVAILABLE
        assert await servers.client.unary(ECHO, b"x", 20) == b"x"


async def test_a_server_that_refuses_every_time_is_believed():
    taken = 0

    async def refuse(reader, writer):
        nonlocal taken
        peer = Peer(reader, writer)
        peer.send(frames.settings({}))
        await reader.readexactly(len(frames.PREFACE))
        while (received := await peer.next_frame()) is not None:
            if received.kind == frames.HEADERS:
                taken += 1
                peer.send(frames.rst_stream(received.stream_id, ErrorCode.REFUSED_STREAM))
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    client = channel(Transport.NATIVE, f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    for call in (client.unary, lambda path, body, timeout_s: client.stub_channel.unary_unary(path)(body, timeout=5)):
        taken = 0
        with pytest.raises(RpcError) as caught:
            await call(ECHO, b"x", 5)
        assert (caught.value.code, taken) == (Code.UNAVAILABLE, 3)
    await client.close()
    listener.close()
    await listener.wait_closed()


async def test_a_server_that_accepts_and_is_silent_gets_no_call():
    """Until it says its SETTINGS: a call sent before might have been served, or not."""
    heard = bytearray()
    quiet = asyncio.Event()

    async def listen(reader, writer):
        heard.extend(await reader.read(1 << 16))
        quiet.set()
        heard.extend(await reader.read(1 << 16))
        writer.close()

    listener = await asyncio.start_server(listen, "127.0.0.1", 0)
    client = channel(Transport.NATIVE, f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    calling = asyncio.ensure_future(client.unary(ECHO, b"x", 5))
    await quiet.wait()
    await client.close()
    with pytest.raises(RpcError) as caught:
        await calling
    assert caught.value.code is Code.CANCELLED
    assert heard.startswith(frames.PREFACE)
    assert ECHO.encode() not in heard
    listener.close()
    await listener.wait_closed()
