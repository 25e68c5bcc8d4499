"""Peers that mean harm, on real sockets: each ends with a counted reason, quietly, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from serving.transport import ServerOptions, frames
from serving.transport.call import frame_message, request_prefix
from serving.transport.frames import ErrorCode, Setting, frame
from serving.transport.hpack import encode
from tests.integration.http2_peer import (
    BIG,
    ECHO,
    HELLO,
    LATER,
    NEVER,
    message,
    opening,
    polite,
    raw,
    request,
    serving,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM
FLOODED = "too many frames to no purpose"
ODD = range(1, 9000, 2)
BOMB = encode(((b"k", b"v" * 4000),))[1:]
"""A field of 4 kB as a literal, without its first byte."""


MADE_UP = {
    "frame size error": [frames.header(16_385 + size, frames.DATA, 0, 1) for size in range(20)],
    "protocol error": [
        *(frame(frames.RST_STREAM, 0, number, bytes(4)) for number in range(101, 141, 2)),
        *(frames.settings({Setting.ENABLE_PUSH: 2 + number}) for number in range(5)),
        *(opening(2 * number) for number in range(1, 5)),
    ],
    "header compression error": [frame(frames.HEADERS, 5, 1, bytes((0xC0 + index,))) for index in range(20)],
}
"""Faults whose descriptions quote what the peer sent."""


def each(*parts):
    """The parts for one stream after another."""
    return b"".join(part(number) for number in ODD for part in parts)


def reset(number):
    return frames.rst_stream(number, ErrorCode.CANCEL)


FLOODS = {
    "rapid reset": each(opening, reset),
    "rapid reset of calls that run": each(lambda number: request(number, LATER), reset),
    "streams reset by the server": each(opening, lambda number: frames.window_update(number, 0)),
    "more streams than allowed": each(opening) + each(opening),
    "SETTINGS": frames.settings({}) * 5000,
    "acknowledgements of SETTINGS": frame(frames.SETTINGS, frames.ACK, 0) * 5000,
    "PING": frame(frames.PING, 0, 0, b"12345678") * 5000,
    "answers to PING": frame(frames.PING, frames.ACK, 0, b"12345678") * 5000,
    "PRIORITY": frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\0") * 5000,
    "unknown frames": frame(0xEE, 0, 0) * 5000,
    "RST_STREAM": opening(1) + reset(1) * 5000,
    "empty DATA": opening(1) + frame(frames.DATA, 0, 1) * 5000,
    "padding alone": opening(1) + frame(frames.DATA, frames.PADDED, 1, b"\0") * 5000,
    "DATA of a closed stream": request(1) + frame(frames.DATA, 0, 1) * 5000,
    "windows of a closed stream": request(1) + frames.window_update(1, 1) * 5000,
    "header bombs": frame(frames.HEADERS, 5, 1, b"\x40" + BOMB)
    + b"".join(frame(frames.HEADERS, 5, number, b"\xbe" * 16_000) for number in range(3, 203, 2)),
}
ENDLESS = {
    "CONTINUATION": frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1) * 1000,
    "CONTINUATION of 16 kB": frame(frames.HEADERS, 0, 1) + frame(frames.CONTINUATION, 0, 1, b"\0" * 16_000) * 100,
}
GARBAGE = {
    "zeros": bytes(4000),
    "ones": b"\xff" * 4000,
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 400,
    "noise": random.Random(3).randbytes(20_000),
    "other noise": random.Random(4).randbytes(20_000),
}
POINTS = {
    "at once": b"",
    "inside the preface": frames.PREFACE[:9],
    "after the preface": frames.PREFACE,
    "after the greeting": HELLO,
    "inside a header block": HELLO + frame(frames.HEADERS, 0, 1, request_prefix(NEVER, "t")[:20]),
    "while a call runs": HELLO + request(1, NEVER),
    "inside a message": HELLO + opening(1, ECHO) + frame(frames.DATA, 0, 1, b"\0\0\0\1\0"),
    "inside a frame": HELLO + opening(1, ECHO) + frames.header(9, frames.DATA, 0, 1),
}


async def gone(made):
    """Fails by its time-out where a connection or a call stays."""
    async with asyncio.timeout(10):
        while made._connections or made.calls:
            made._progress.clear()
            await made._progress.wait()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.sleep(0)  # cancelled ones end
    assert not [task for task in others if not task.done() and task is not made._refreshing]


async def attacked(attack, caplog):
    """The server's last word, and what it counted."""
    async with serving() as (made, port), raw(port) as peer:
        peer.send(attack)
        received = await peer.until_closed()
        await gone(made)
        assert sum(made.closed_for.values()) == 1
        assert not caplog.records
        return received[-1], next(iter(made.closed_for))


@pytest.mark.parametrize("attack", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_frames_wears_patience_out(attack, caplog):
    _, reason = await attacked(HELLO + attack, caplog)
    assert reason == FLOODED


@pytest.mark.parametrize("attack", ENDLESS.values(), ids=ENDLESS.keys())
async def test_a_block_without_end_is_cut(attack, caplog):
    _, reason = await attacked(HELLO + attack, caplog)
    assert reason == "a header block without end"


async def test_new_windows_for_many_streams_wear_patience_out_soon():
    """Each is work for every stream: two thousand of them would take a second."""
    windows = b"".join(frames.settings({Setting.INITIAL_WINDOW_SIZE: size % 2}) for size in range(1000))
    async with serving() as (_, port), raw(port) as peer:
        peer.send(HELLO, *(opening(number) for number in range(1, 2001, 2)))
        await peer.alive()
        peer.send(windows)
        assert await peer.goaway() is CALM
        acknowledged = [item for item in peer.frames_received if item.kind == frames.SETTINGS and item.flags]
        assert len(acknowledged) < 30


async def test_new_windows_for_few_streams_are_nobodys_burden():
    windows = b"".join(frames.settings({Setting.INITIAL_WINDOW_SIZE: size % 2}) for size in range(1000))
    async with serving() as (_, port), raw(port) as peer:
        peer.send(HELLO, opening(1), windows)
        await peer.alive()


async def test_the_last_word_says_why():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(HELLO, opening(1, NEVER), frame(frames.PING, 0, 0, b"12345678") * 3000)
        assert await peer.goaway() is CALM
        assert peer.frames_received[-1].payload.endswith(FLOODED.encode())


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("before", POINTS.values(), ids=POINTS.keys())
async def test_garbage_at_any_point_ends_the_connection_and_nothing_else(before, garbage, caplog):
    async with serving() as (made, port), raw(port) as peer:
        client = polite(port)
        assert await client.unary(ECHO, b"x", 5) == b"x"
        peer.send(before, garbage)
        await asyncio.sleep(0)
        peer.end()  # what looks like the start of a frame waits for the rest
        await peer.until_closed()
        assert await client.unary(ECHO, b"y", 5) == b"y"
        await client.close()
        await gone(made)
    assert not caplog.records


async def test_an_oversized_frame_is_refused_by_its_header():
    async with serving() as (made, port), raw(port) as peer:
        peer.send(HELLO, opening(1, ECHO), frames.header(16_385, frames.DATA, 0, 1))
        assert await peer.goaway() is ErrorCode.FRAME_SIZE_ERROR
        await gone(made)
        assert made.closed_for == {"frame size error": 1}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (frame(frames.DATA, 0, 1, b"\0\x40\0\0\0"), b"8"),
        (frame(frames.DATA, 0, 1, b"\0\xff\xff\xff\xff"), b"8"),
        (frame(frames.DATA, 0, 1, b"\2\0\0\0\1x"), b"13"),
        (frame(frames.DATA, frames.END_STREAM, 1, b"\0\0\0\0\5x"), b"13"),
        (message(1, end=False) * 2, b"13"),
    ],
    ids=["oversized", "huge", "unknown compression", "cut short", "two instead of one"],
)
async def test_a_bad_message_costs_its_call_alone(sent, status):
    async with serving() as (made, port), raw(port) as peer:
        peer.send(HELLO, opening(1, ECHO), sent)
        ended = next(item for item in await peer.until_ended(1) if item.kind == frames.HEADERS)
        assert encode(((b"grpc-status", status),)) in ended.payload
        await peer.alive()
        assert not made.calls


async def test_a_header_bomb_costs_its_call_alone():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(HELLO, frame(frames.HEADERS, 5, 1, b"\x40" + BOMB), frame(frames.HEADERS, 5, 3, b"\xbe" * 16_000))
        assert encode(((b"grpc-status", b"8"),)) in (await peer.until_ended(3))[0].payload
        peer.send(request(5))
        assert (await peer.until_ended(5))[1].payload == frame_message(b"")


async def test_what_peers_make_up_is_counted_under_few_names():
    async with serving() as (made, port):
        for number, (name, attacks) in enumerate(MADE_UP.items(), 1):
            for attack in attacks:
                async with raw(port) as peer:
                    peer.send(HELLO, attack)
                    await peer.goaway()
            await gone(made)
            assert made.closed_for[name] == len(attacks)
            assert len(made.closed_for) == number


SLOW = {
    "no preface": ((), "handshake timeout"),
    "half a preface": ((frames.PREFACE[:9],), "handshake timeout"),
    "no SETTINGS": ((frames.PREFACE,), "handshake timeout"),
    "half a header block": ((HELLO, frame(frames.HEADERS, 0, 1, request_prefix(NEVER, "t"))), "slow headers"),
    "half a frame": ((HELLO, opening(1, NEVER), frames.header(100, frames.DATA, 0, 1) + b"x"), "slow frame"),
    "a window that stays shut": (
        (frames.PREFACE, frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), request(1, BIG)), "stalled"),
}  # fmt: skip


@pytest.mark.parametrize(("greeting", "reason"), SLOW.values(), ids=SLOW.keys())
async def test_what_does_not_go_on_is_closed(greeting, reason, caplog):
    async with serving(ServerOptions(keepalive_s=1000)) as (made, port), raw(port) as peer:
        client = polite(port)
        await client.unary(ECHO, b"x", 5)
        peer.send(*greeting)
        await client.unary(ECHO, b"x", 5)
        await client.unary(ECHO, b"x", 5)
        for seconds in range(63):
            made.tick(asyncio.get_running_loop().time() + seconds)
        await peer.until_closed()
        assert made.closed_for == {reason: 1}
        assert await client.unary(ECHO, b"x", 5) == b"x"
        await client.close()
        await gone(made)
    assert not caplog.records


async def test_a_peer_that_is_gone_without_a_word_is_asked_and_then_closed():
    async with serving(ServerOptions(keepalive_s=5)) as (made, port), raw(port) as peer, raw(port) as answering:
        for either in (peer, answering):
            either.send(HELLO, request(1, NEVER))
            await either.alive()
        now = asyncio.get_running_loop().time()
        made.tick(now + 6)
        for either in (peer, answering):
            await either.until(frames.PING, stream_id=0)
        answering.send(frame(frames.PING, frames.ACK, 0, b"tessera\0"))
        await answering.alive()
        for protocol in made._connections:  # what was heard, was heard now
            protocol.watch.heard_at += 6 if protocol.connection.pings_unanswered == 0 else 0
        made.tick(now + 11)
        await peer.until_closed()
        assert made.closed_for == {"silent": 1}
        assert len(made._connections) == len(made.calls) == 1
        await answering.alive()


CONTENT = {
    b"application/grpc": True,
    b"application/grpc+proto": True,
    b"application/grpc+json": True,
    b"application/grpc;charset=utf-8": True,
    b"application/grpc-web": False,
    b"application/grpc-web+proto": False,
    b"application/json": False,
    b"text/plain;application/grpc": False,
    b"": False,
}


async def test_what_is_not_grpc_is_told_so():
    plain = request_prefix(ECHO, "test").replace(encode(((b"content-type", b"application/grpc"),)), b"")
    async with serving() as (_, port), raw(port) as peer:
        peer.send(HELLO, frames.headers(1, b"\x83\x86\x84", end_stream=True))
        assert b"415" in (await peer.until(frames.HEADERS)).payload
        for number, (content, is_grpc) in zip(range(3, 99, 2), CONTENT.items(), strict=False):
            head = plain + encode(((b"content-type", content),))
            peer.send(frames.headers(number, head, end_stream=False), message(number, b"x"))
            answer = await peer.until(frames.HEADERS, stream_id=number)
            assert (b"415" not in answer.payload) is is_grpc, content


async def test_connections_beyond_the_limit_are_closed_at_once():
    async with serving(ServerOptions(max_connections=2)) as (made, port), raw(port) as first, raw(port) as second:
        for peer in (first, second):
            peer.send(HELLO)
            await peer.alive()
        with contextlib.suppress(ConnectionError):  # TLS cannot even begin
            async with raw(port) as third:
                assert await third.until_closed() == []
        assert made.closed_for == {"too many connections": 1}
        second.writer.close()
        await first.alive()
        while len(made._connections) > 1:
            await first.alive()
        async with raw(port) as fourth:
            fourth.send(HELLO)
            await fourth.alive()
