"""Servers that mean harm, on real sockets: a client ends their connection with a reason, quietly, and goes on."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from serving.transport import Channel, ChannelOptions, Code, RpcError, frames
from serving.transport.call import OK_TRAILERS, RESPONSE_HEAD, frame_message
from serving.transport.frames import ErrorCode, Setting, frame
from serving.transport.hpack import encode
from tests.integration.hostile.test_peers import BOMB, ENDLESS, FLOODED, GARBAGE
from tests.integration.http2_peer import ECHO, Peer, polite, scripted

HELLO = frames.settings({})
HEAD = frames.headers(1, RESPONSE_HEAD, False)
REPLY = frame_message(b"reply")
DATA, HEADERS, PING, WHOLE = frames.DATA, frames.HEADERS, frames.PING, frames.END_HEADERS
QUIET = ChannelOptions(max_receive_bytes=1000, keepalive_s=1000, backoff_max_s=0.01)
"""Only the test lets time pass, and the next server is met at once."""
_SOON_S = 5
"""Much sooner than deadlines, pauses and keepalive would be."""


def whole(number):
    return b"".join(frames.whole_response(number, RESPONSE_HEAD, frame_message(b"good"), OK_TRAILERS))


async def behaves(peer: Peer) -> None:
    peer.send(HELLO)
    await peer.preface()
    while (item := await peer.next_frame()) is not None:
        if item.kind == DATA and item.flags & frames.END_STREAM:
            peer.send(whole(item.stream_id))


@dataclass(frozen=True, slots=True)
class Met:
    """A client whose first connection meets the server of the test; those that follow meet a good one."""

    client: Channel

    async def call(self, timeout_s=30.0):
        return await self.client.unary(ECHO, b"x", timeout_s)

    async def connected(self):
        """The connection, once there is one."""
        async with asyncio.timeout(_SOON_S):
            while self.client._links[0].protocol is None:
                await asyncio.sleep(0)
        return self.client._links[0].protocol

    async def first(self):
        """The connection once the call on it has begun."""
        protocol = await self.connected()
        async with asyncio.timeout(_SOON_S):
            while not protocol.connection.streams:
                await asyncio.sleep(0)
        return protocol

    async def failure(self):
        """Of the first call, which has no deadline that would help it; how its connection ended."""
        calling = asyncio.ensure_future(self.client.unary(ECHO, b"x", None))
        async with asyncio.timeout(_SOON_S):
            protocol = await self.first()
            with pytest.raises(RpcError) as caught:
                await calling
            await protocol.lost.wait()
        assert not (protocol.connection.streams or protocol.waiting)
        return caught.value, protocol.connection

    async def is_well(self):
        """The next call is served, and leaves nothing."""
        assert await self.call(_SOON_S) == b"good"
        assert not self.client._links[0].protocol.connection.streams


@asynccontextmanager
async def met(first, options=QUIET):
    left = [first]

    async def meet(peer):
        await (left.pop() if left else behaves)(peer)

    before = asyncio.all_tasks()
    async with scripted(meet) as port:
        client = polite(port, options)
        try:
            yield Met(client)
        finally:
            await client.close()
    async with asyncio.timeout(_SOON_S):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0)


def answers(*parts, stays=True):
    """With these bytes to its first call; then it reads on, or closes."""

    async def meet(peer):
        peer.send(HELLO)
        await peer.preface()
        while (item := await peer.next_frame()) is not None and item.kind != HEADERS:
            pass
        for part in parts:
            peer.send(part)
            await asyncio.sleep(0)
        if stays:
            await peer.until_closed()

    return meet


EARLY = frames.headers(1, encode(((b":status", b"103"),)), False)
FLOODS = {
    "SETTINGS": HELLO * 5000,
    "acknowledgements of SETTINGS": frame(frames.SETTINGS, frames.ACK, 0) * 5000,
    "PING": frame(PING, 0, 0, b"12345678") * 5000,
    "answers to PING": frame(PING, frames.ACK, 0, b"12345678") * 5000,
    "PRIORITY": frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\0") * 5000,
    "unknown frames": frame(0xEE, 0, 0) * 5000,
    "GOAWAY": frames.goaway(1, ErrorCode.NO_ERROR) * 5000,
    "RST_STREAM": frames.rst_stream(1, ErrorCode.CANCEL) * 5000,
    "empty DATA": HEAD + frame(DATA, 0, 1) * 5000,
    "padding alone": HEAD + frame(DATA, frames.PADDED, 1, b"\0") * 5000,
    "DATA of a closed stream": whole(1) + frame(DATA, 0, 1) * 5000,
    "HEADERS of a closed stream": whole(1) + HEAD * 5000,
    "windows of a closed stream": whole(1) + frames.window_update(1, 1) * 5000,
    "informational heads": EARLY * 5000,
    "informational heads and bombs": frame(HEADERS, WHOLE, 1, b"\x40" + BOMB)
    + frame(HEADERS, WHOLE, 1, b"\xbe" * 16_000) * 100,
}


@pytest.mark.parametrize("attack", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_wears_patience_out(attack, caplog):
    async with met(answers(attack)) as scene:
        calling = asyncio.ensure_future(scene.call(_SOON_S))
        protocol = await scene.first()
        async with asyncio.timeout(_SOON_S):
            await protocol.lost.wait()
        await asyncio.wait((calling,))
        assert isinstance(calling.exception(), RpcError | None)
        assert (protocol.connection.closed_code, protocol.connection.closed_reason) == (
            ErrorCode.ENHANCE_YOUR_CALM,
            FLOODED,
        )
        await scene.is_well()
    assert not caplog.records


@pytest.mark.parametrize("attack", ENDLESS.values(), ids=ENDLESS.keys())
async def test_a_block_without_end_is_cut(attack, caplog):
    async with met(answers(attack)) as scene:
        error, connection = await scene.failure()
        assert error.code is Code.UNAVAILABLE
        assert connection.closed_reason == "a header block without end"
        await scene.is_well()
    assert not caplog.records


PROTOCOL, FLOW = ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR
SIZE, COMPRESSION = ErrorCode.FRAME_SIZE_ERROR, ErrorCode.COMPRESSION_ERROR
BROKEN = {
    "a frame too large": (frames.header(16_385, DATA, 0, 1), SIZE),
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "DATA on a stream that nobody opened": (frame(DATA, 0, 9, b"x"), PROTOCOL),
    "HEADERS on stream 0": (frames.headers(0, RESPONSE_HEAD, False), PROTOCOL),
    "HEADERS on a stream that nobody opened": (frames.headers(9, RESPONSE_HEAD, False), PROTOCOL),
    "a stream of the server's": (frames.headers(2, RESPONSE_HEAD, False), PROTOCOL),
    "a push": (frame(frames.PUSH_PROMISE, WHOLE, 1, b"\0\0\0\2" + RESPONSE_HEAD), PROTOCOL),
    "an index beyond the tables": (frame(HEADERS, WHOLE, 1, b"\xc6"), COMPRESSION),
    "a block that is interrupted": (frame(HEADERS, 0, 1, RESPONSE_HEAD) + frame(DATA, 0, 1, b"x"), PROTOCOL),
    "a CONTINUATION alone": (frame(frames.CONTINUATION, WHOLE, 1, RESPONSE_HEAD), PROTOCOL),
    "padding longer than its frame": (HEAD + frame(DATA, frames.PADDED, 1, b"\x09x"), PROTOCOL),
    "a window update of nothing": (frames.window_update(0, 0), PROTOCOL),
    "a window beyond 2^31 - 1": (frames.window_update(0, frames.MAX_WINDOW), FLOW),
    "a window for a stream that nobody opened": (frames.window_update(9, 1), PROTOCOL),
    "a reset of a stream that nobody opened": (frames.rst_stream(9, ErrorCode.CANCEL), PROTOCOL),
    "a reset of three bytes": (frame(frames.RST_STREAM, 0, 1, b"\0\0\0"), SIZE),
    "PRIORITY on stream 0": (frame(frames.PRIORITY, 0, 0, b"\0\0\0\0\0"), PROTOCOL),
    "a PING of one byte": (frame(PING, 0, 0, b"1"), SIZE),
    "a PING on a stream": (frame(PING, 0, 1, b"12345678"), PROTOCOL),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of five bytes": (frame(frames.SETTINGS, 0, 0, b"12345"), SIZE),
    "an acknowledgement with values": (frame(frames.SETTINGS, frames.ACK, 0, b"123456"), SIZE),
    "a permission to push": (frames.settings({Setting.ENABLE_PUSH: 1}), PROTOCOL),
    "an initial window beyond 2^31 - 1": (frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}), FLOW),
    "a tiny frame limit": (frames.settings({Setting.MAX_FRAME_SIZE: 100}), PROTOCOL),
    "a GOAWAY on a stream": (frame(frames.GOAWAY, 0, 1, bytes(8)), PROTOCOL),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_server_that_breaks_the_rules_of_the_connection_gets_a_goaway(sent, code, caplog):
    async with met(answers(sent)) as scene:
        error, connection = await scene.failure()
        assert (error.code, connection.closed_code) == (Code.UNAVAILABLE, code)
        await scene.is_well()
    assert not caplog.records


POINTS = {
    "at once": None,
    "after the greeting": b"",
    "inside a header block": frame(HEADERS, 0, 1, RESPONSE_HEAD),
    "after the head": HEAD,
    "inside a message": HEAD + frame(DATA, 0, 1, REPLY[:7]),
    "inside a frame": HEAD + frames.header(900, DATA, 0, 1),
    "after the response": whole(1),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("before", POINTS.values(), ids=POINTS.keys())
async def test_garbage_at_any_point_ends_the_connection_and_nothing_else(before, garbage, caplog):
    async def talk(peer):
        peer.send(garbage)

    async with met(talk if before is None else answers(before, garbage, stays=False)) as scene:
        try:
            assert await scene.call(_SOON_S) == b"good"  # before the garbage, or of the next server
        except RpcError as error:
            assert error.code in {Code.UNAVAILABLE, Code.INTERNAL, Code.RESOURCE_EXHAUSTED}
        await scene.is_well()
    assert not caplog.records


CUT = {name: sent for name, sent in POINTS.items() if name != "after the response"}


@pytest.mark.parametrize("before", CUT.values(), ids=CUT.keys())
async def test_a_connection_that_is_torn_at_any_point_is_a_status(before, caplog):
    """Without TLS's goodbye."""

    async def tear(peer):
        if before is not None:
            await answers(before, stays=False)(peer)
        peer.writer.transport.abort()

    async with met(tear) as scene:
        try:
            assert await scene.call(_SOON_S) == b"good"  # of the next server, where this one took no call
            assert before is None
        except RpcError as error:
            assert error.code is Code.UNAVAILABLE
        await scene.is_well()
    assert not caplog.records


# --- servers that do not go on ---


STALLS = {
    "after the greeting": b"",
    "inside a header block": frame(HEADERS, 0, 1, RESPONSE_HEAD),
    "after the head": HEAD,
    "inside a message": HEAD + frame(DATA, 0, 1, REPLY[:7]),
    "inside a frame": HEAD + frames.header(900, DATA, 0, 1),
    "before the trailers": HEAD + frame(DATA, 0, 1, REPLY),
}


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
@pytest.mark.parametrize("before", STALLS.values(), ids=STALLS.keys())
async def test_a_server_that_stalls_costs_its_callers_their_deadlines(before, is_stub, caplog):
    async with met(answers(before)) as scene:
        stub = scene.client.stub_channel.unary_unary(ECHO)
        with pytest.raises(RpcError) as caught:
            await (stub(b"x", timeout=0.1) if is_stub else scene.call(0.1))
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert not (await scene.connected()).connection.streams
    assert not caplog.records


@pytest.mark.parametrize(
    ("before", "reason"),
    [(STALLS["after the head"], "the peer does not answer"), (STALLS["inside a frame"], "slow frame"),
        (STALLS["inside a header block"], "slow headers")],
    ids=["silent", "inside a frame", "inside a header block"],
)  # fmt: skip
async def test_a_server_that_does_not_go_on_is_given_up_though_no_deadline_is_set(before, reason, caplog):
    async with met(answers(before)) as scene:
        calling = asyncio.ensure_future(scene.client.unary(ECHO, b"x", None))
        protocol = await scene.first()
        while not (protocol.connection.inside_frame or protocol.connection.inside_block or heard(protocol)):
            await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        for step in range(3):
            protocol.tick(now + 1001 * step)
        with pytest.raises(RpcError, match=reason) as caught:
            await calling
        assert caught.value.code is Code.UNAVAILABLE
        await scene.is_well()
    assert not caplog.records


def heard(protocol):
    """The head of the first call has come."""
    return any(call._head is not None for call in protocol._calls())


@pytest.mark.parametrize("setting", [Setting.INITIAL_WINDOW_SIZE, Setting.MAX_CONCURRENT_STREAMS])
async def test_a_server_that_allows_nothing_costs_deadlines_and_nothing_else(setting, caplog):
    async def allow_nothing(peer):
        peer.send(frames.settings({setting: 0}))
        await peer.until_closed()

    async with met(allow_nothing) as scene:
        stub = scene.client.stub_channel.unary_unary(ECHO)
        for call in (scene.call, lambda timeout_s: stub(b"x", timeout=timeout_s)):
            with pytest.raises(RpcError) as caught:
                await call(0.05)
            assert caught.value.code is Code.DEADLINE_EXCEEDED
        protocol = await scene.connected()
        assert not (protocol.connection.streams or protocol.connection.pending_bytes)
        await asyncio.sleep(0)
        assert not any(not waiter.done() for waiter in protocol.waiting)
    assert not caplog.records


async def test_a_server_that_says_nothing_costs_deadlines_and_the_channel_closes(caplog):
    async def say_nothing(peer):
        await peer.until_closed()

    async with met(say_nothing) as scene:
        with pytest.raises(RpcError) as caught:
            await scene.call(0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert not caplog.records


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
async def test_an_answer_before_the_end_of_the_request_leaves_no_stream(is_stub):
    """Of a server that neither takes the rest nor says that it will not."""

    async def answer_early(peer):
        peer.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
        await peer.preface()
        while (item := await peer.next_frame()) is not None:
            if item.kind == HEADERS:
                peer.send(whole(item.stream_id))

    async with met(answer_early) as scene:
        for _ in range(3):
            if is_stub:
                call = scene.client.stub_channel.stream_stream(ECHO)(timeout=5)
                assert [reply async for reply in call] == [b"good"]
            else:
                assert await scene.client.unary(ECHO, bytes(1000), 5) == b"good"
            connection = scene.client._links[0].protocol.connection
            assert not (connection.streams or connection.pending_bytes)


async def test_what_a_server_sends_is_taken_in_portions():
    """So that it holds up nobody else of the loop, however small its pieces are."""
    pieces = 20_000
    sent = HEAD + frame(DATA, 0, 1, b"\0" + pieces.to_bytes(4, "big")) + frame(DATA, 0, 1, b"x") * pieces
    end = frames.headers(1, OK_TRAILERS, True)
    async with met(answers(sent, end), replace(QUIET, max_receive_bytes=pieces)) as scene:
        calling = asyncio.ensure_future(scene.call())
        protocol = await scene.first()
        turns = []
        async with asyncio.timeout(_SOON_S):
            while not calling.done():
                turns.append(protocol.connection.bytes_taken)
                await asyncio.sleep(0)
        assert await calling == b"x" * pieces
    most = 2 * 10 * frames.MOST_FRAMES  # uvloop may read a new one in the turn of the last
    assert max(after - before for before, after in itertools.pairwise(turns)) <= most


async def test_a_server_that_accepts_and_closes_is_not_asked_again_and_again():
    accepted = []

    async def hang_up(peer):
        accepted.append(peer)

    async with scripted(hang_up) as port:
        client = polite(port)
        for _ in range(100):
            with pytest.raises(RpcError) as caught:
                await client.unary(ECHO, b"x", 5)
            assert caught.value.code is Code.UNAVAILABLE
        assert len(accepted) < 10
        await client.close()
