"""The public h2spec cases (its numbers are those of RFC 7540 and RFC 7541) against the native server on a socket."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import hpack
import pytest

from serving.transport import frames
from serving.transport.call import request_prefix
from serving.transport.frames import ErrorCode, Setting, frame
from serving.transport.hpack import encode
from tests.integration.http2_peer import ECHO, HELLO, NEVER, message, opening, raw, request, serving

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END = frames.END_STREAM
WHOLE = frames.END_HEADERS
PROTOCOL, STREAM_CLOSED = ErrorCode.PROTOCOL_ERROR, ErrorCode.STREAM_CLOSED
FLOW, SIZE, COMPRESSION = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.COMPRESSION_ERROR
WEIGHT = b"\x00\x00\x00\x00\x0f"
BLOCK = request_prefix(NEVER, "test")
REQUIRED = {b":method": b"POST", b":scheme": b"http", b":path": NEVER.encode(), b":authority": b"test"}


class Ended(NamedTuple):
    """Wait until the server has ended this stream, and then go on."""

    stream_id: int


class Goaway(NamedTuple):
    code: ErrorCode


class Reset(NamedTuple):
    code: ErrorCode
    stream_id: int = 1


class Answered(NamedTuple):
    """A whole response on this stream, whose head has this in its block."""

    stream_id: int = 1
    head: bytes = b"application/grpc"


class Alive(NamedTuple):
    """Nothing happens: the connection goes on to answer."""


class Closed(NamedTuple):
    """A GOAWAY without a complaint, or none."""


Step = bytes | Ended
Outcome = Goaway | Reset | Answered | Alive | Closed


def fields(stream_id: int = 1, end: bool = False, extra: tuple[tuple[bytes, bytes], ...] = (), **changed: bytes | None):
    """HEADERS of a call with pseudo fields changed or left out (None), and others after them."""
    pseudo = {**REQUIRED, **{b":" + name.encode(): value for name, value in changed.items()}}
    kept = tuple((name, value) for name, value in pseudo.items() if value is not None)
    rest = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    return frames.headers(stream_id, encode(kept + rest + extra), end)


def block(more: bytes) -> bytes:
    """HEADERS of a call whose block goes on with these bytes."""
    return opening(1, ECHO, more)


def update(increment: int, stream_id: int = 0) -> bytes:
    return frames.window_update(stream_id, increment)


def reset(stream_id: int = 1, code: int = ErrorCode.CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def trailers(*names_and_values: tuple[bytes, bytes], end: bool = True) -> bytes:
    return frames.headers(1, encode(names_and_values), end)


GENERIC: dict[str, tuple[tuple[Step, ...], Outcome]] = {
    "generic/1/1 a preface": ((), Alive()),
    "generic/2/1 PRIORITY on an idle stream": ((frame(PRIORITY, 0, 1, WEIGHT), request(1)), Answered()),
    "generic/2/2 WINDOW_UPDATE on a half-closed stream": ((request(1, NEVER), update(100, 1)), Alive()),
    "generic/2/3 PRIORITY on a half-closed stream": ((request(1, NEVER), frame(PRIORITY, 0, 1, WEIGHT)), Alive()),
    "generic/2/4 RST_STREAM on a half-closed stream": ((request(1, NEVER), reset()), Alive()),
    "generic/2/5 PRIORITY on a closed stream": ((request(1), Ended(1), frame(PRIORITY, 0, 1, WEIGHT)), Alive()),
    "generic/3.1/1 DATA": ((request(1),), Answered()),
    "generic/3.1/2 several DATA": ((opening(1, ECHO), frame(DATA, 0, 1, b"\0\0\0"), frame(DATA, END, 1, b"\0\0")),
        Answered()),
    "generic/3.1/3 DATA with padding": (
        (opening(1, ECHO), frame(DATA, END | frames.PADDED, 1, b"\x06\0\0\0\0\0" + b"\0" * 6)), Answered()),
    "generic/3.2/1 HEADERS": ((opening(1, ECHO), message(1)), Answered()),
    "generic/3.2/2 HEADERS with padding": (
        (frame(HEADERS, WHOLE | frames.PADDED, 1, b"\x06" + request_prefix(ECHO, "t") + b"\0" * 6), message(1)),
        Answered()),
    "generic/3.2/3 HEADERS with a priority": (
        (frame(HEADERS, WHOLE | frames.PRIORITISED, 1, WEIGHT + request_prefix(ECHO, "t")), message(1)), Answered()),
    "generic/3.3/1 PRIORITY of weight 1": ((frame(PRIORITY, 0, 1, b"\0\0\0\0\0"), request(1)), Answered()),
    "generic/3.3/2 PRIORITY of weight 256": ((frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"), request(1)), Answered()),
    "generic/3.3/3 PRIORITY with a dependency": ((frame(PRIORITY, 0, 3, b"\0\0\0\1\xff"), request(3)), Answered(3)),
    "generic/3.3/4 PRIORITY, exclusive": ((frame(PRIORITY, 0, 3, b"\x80\0\0\1\xff"), request(3)), Answered(3)),
    "generic/3.3/5 PRIORITY on an idle stream, then a lower one": (
        (frame(PRIORITY, 0, 5, WEIGHT), request(3)), Answered(3)),
    "generic/3.4/1 RST_STREAM": ((opening(1), reset()), Alive()),
    "generic/3.5/1 SETTINGS": ((frames.settings({Setting.MAX_CONCURRENT_STREAMS: 100}),), Alive()),
    "generic/3.7/1 PING": ((frame(PING, 0, 0, b"12345678"),), Alive()),
    "generic/3.8/1 GOAWAY": ((frames.goaway(0, ErrorCode.NO_ERROR),), Closed()),
    "generic/3.9/1 WINDOW_UPDATE on the connection": ((update(1), request(1)), Answered()),
    "generic/3.9/2 WINDOW_UPDATE on a stream": ((opening(1, ECHO), update(1, 1), message(1)), Answered()),
    "generic/3.10/1 CONTINUATION": (
        (frame(HEADERS, 0, 1, BLOCK[:9]), frame(CONTINUATION, WHOLE, 1, BLOCK[9:])), Alive()),
    "generic/3.10/2 several CONTINUATIONs": ((
        frame(HEADERS, END, 1, b""), frame(CONTINUATION, 0, 1, BLOCK[:9]), frame(CONTINUATION, WHOLE, 1, BLOCK[9:])),
        Answered()),
    "generic/4/1 GET": ((frames.headers(1, b"\x82\x86\x84", True),), Answered(head=b"415")),
    "generic/4/2 HEAD": ((frames.headers(1, b"\x42\x04HEAD\x86\x84", True),), Answered(head=b"415")),
    "generic/4/3 POST": ((request(1),), Answered()),
    "generic/4/4 POST with trailers": (
        (opening(1, ECHO), message(1, end=False), trailers((b"x-test", b"ok"))), Answered()),
    "generic/5/2 an indexed field": ((block(b"\x90"), message(1)), Answered()),
    "generic/5/3 a literal with indexing, name indexed": ((block(b"\x7a\x02me"), message(1)), Answered()),
    "generic/5/4 the same, Huffman-coded": ((block(b"\x50\x84\x8c\x69\x8a\x7f"), message(1)), Answered()),
    "generic/5/5 a literal with indexing, new name": ((block(b"\x40\x01a\x01b"), message(1)), Answered()),
    "generic/5/7 a literal without indexing, name indexed": ((block(b"\x0f\x2b\x02me"), message(1)), Answered()),
    "generic/5/9 a literal without indexing, new name": ((block(b"\x00\x01a\x01b"), message(1)), Answered()),
    "generic/5/11 a literal never indexed, name indexed": ((block(b"\x1f\x2b\x02me"), message(1)), Answered()),
    "generic/5/13 a literal never indexed, new name": ((block(b"\x10\x01a\x01b"), message(1)), Answered()),
    "generic/5/14 a table size update": (
        (frames.headers(1, b"\x3f\xe1\x1f" + request_prefix(ECHO, "t"), False), message(1)), Answered()),
    "generic/5/15 several table size updates": (
        (frames.headers(1, b"\x20\x3f\xe1\x1f" + request_prefix(ECHO, "t"), False), message(1)), Answered()),
}  # fmt: skip

FRAMES: dict[str, tuple[tuple[Step, ...], Outcome]] = {
    "4.1/1 an unknown type": ((frame(0xFF, 0, 0, b"\0" * 8),), Alive()),
    "4.1/2 undefined flags": ((frame(PING, 0xFE, 0, b"12345678"),), Alive()),
    "4.1/3 the reserved bit": ((frames.header(8, PING, 0, 1 << 31) + b"12345678",), Alive()),
    "4.2/1 DATA of 2^14 bytes": ((opening(1), frame(DATA, END, 1, b"\0\0\0\x3f\xfb" + b"x" * 16_379)), Alive()),
    "4.2/2 DATA beyond that": ((opening(1), frame(DATA, END, 1, b"x" * 16_385)), Goaway(SIZE)),
    "4.2/3 HEADERS beyond that": ((frame(HEADERS, WHOLE, 1, BLOCK + b"x" * 16_384),), Goaway(SIZE)),
    "4.3/1 a broken block": ((frame(HEADERS, WHOLE | END, 1, b"\x40"),), Goaway(COMPRESSION)),
    "4.3/2 PRIORITY inside a block": ((frame(HEADERS, 0, 1, BLOCK), frame(PRIORITY, 0, 1, WEIGHT)), Goaway(PROTOCOL)),
    "4.3/3 HEADERS inside a block": ((frame(HEADERS, 0, 1, BLOCK), opening(3)), Goaway(PROTOCOL)),
    "5.5/1 an unknown extension": ((frame(0x16, 0, 0, b"\0" * 8),), Alive()),
    "5.5/2 an unknown extension inside a block": ((frame(HEADERS, 0, 1, BLOCK), frame(0x16, 0, 0)), Goaway(PROTOCOL)),
    "6.1/1 DATA on stream 0": ((frame(DATA, END, 0, b"x"),), Goaway(PROTOCOL)),
    "6.1/2 DATA on a stream that is not open": ((request(1, NEVER), frame(DATA, END, 1, b"x")), Reset(STREAM_CLOSED)),
    "6.1/3 DATA with too long a padding": ((opening(1), frame(DATA, END | frames.PADDED, 1, b"\x06abc")),
        Goaway(PROTOCOL)),
    "6.2/1 PRIORITY after unfinished HEADERS": (
        (frame(HEADERS, END, 1, BLOCK), frame(PRIORITY, 0, 1, WEIGHT)), Goaway(PROTOCOL)),
    "6.2/2 HEADERS on another stream after unfinished HEADERS": (
        (frame(HEADERS, END, 1, BLOCK), frame(HEADERS, WHOLE, 3, BLOCK)), Goaway(PROTOCOL)),
    "6.2/3 HEADERS on stream 0": ((frame(HEADERS, WHOLE, 0, BLOCK),), Goaway(PROTOCOL)),
    "6.2/4 HEADERS with too long a padding": (
        (frame(HEADERS, WHOLE | frames.PADDED, 1, bytes((len(BLOCK) + 1,)) + BLOCK),), Goaway(PROTOCOL)),
    "6.3/1 PRIORITY on stream 0": ((frame(PRIORITY, 0, 0, WEIGHT),), Goaway(PROTOCOL)),
    "6.3/2 PRIORITY of four bytes": ((opening(1), frame(PRIORITY, 0, 1, b"\0\0\0\1")), Reset(SIZE)),
    "6.3/2 PRIORITY of four bytes on an idle stream": ((frame(PRIORITY, 0, 1, b"\0\0\0\1"),), Goaway(SIZE)),
    "6.4/1 RST_STREAM on stream 0": ((reset(0),), Goaway(PROTOCOL)),
    "6.4/2 RST_STREAM on an idle stream": ((reset(1),), Goaway(PROTOCOL)),
    "6.4/3 RST_STREAM of three bytes": ((opening(1), frame(RST_STREAM, 0, 1, b"\0\0\0")), Goaway(SIZE)),
    "6.5/1 an acknowledgement with a payload": ((frame(SETTINGS, frames.ACK, 0, b"\0" * 6),), Goaway(SIZE)),
    "6.5/2 SETTINGS on a stream": ((frame(SETTINGS, 0, 1, b"\0\3\0\0\0\1"),), Goaway(PROTOCOL)),
    "6.5/3 SETTINGS of three bytes": ((frame(SETTINGS, 0, 0, b"\0\3\0"),), Goaway(SIZE)),
    "6.5.2/1 ENABLE_PUSH of 2": ((frames.settings({Setting.ENABLE_PUSH: 2}),), Goaway(PROTOCOL)),
    "6.5.2/2 INITIAL_WINDOW_SIZE of 2^31": ((frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}),), Goaway(FLOW)),
    "6.5.2/3 MAX_FRAME_SIZE of 2^14 - 1": ((frames.settings({Setting.MAX_FRAME_SIZE: 16_383}),), Goaway(PROTOCOL)),
    "6.5.2/4 MAX_FRAME_SIZE of 2^24": ((frames.settings({Setting.MAX_FRAME_SIZE: 1 << 24}),), Goaway(PROTOCOL)),
    "6.5.2/5 an unknown setting": ((frame(SETTINGS, 0, 0, b"\0\xff\0\0\0\1"),), Alive()),
    "6.7/2 PING that is an answer": ((frame(PING, frames.ACK, 0, b"invalid\0"),), Alive()),
    "6.7/3 PING on a stream": ((frame(PING, 0, 1, b"12345678"),), Goaway(PROTOCOL)),
    "6.7/4 PING of six bytes": ((frame(PING, 0, 0, b"123456"),), Goaway(SIZE)),
    "6.8/1 GOAWAY on a stream": ((frame(GOAWAY, 0, 1, b"\0" * 8),), Goaway(PROTOCOL)),
    "6.9/1 WINDOW_UPDATE of nothing": ((update(0),), Goaway(PROTOCOL)),
    "6.9/2 WINDOW_UPDATE of nothing on a stream": ((opening(1), update(0, 1)), Reset(PROTOCOL)),
    "6.9/3 WINDOW_UPDATE of three bytes": ((frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"),), Goaway(SIZE)),
    "6.9.1/2 a window of the connection beyond 2^31 - 1": ((update(frames.MAX_WINDOW) * 2,), Goaway(FLOW)),
    "6.9.1/3 a window of a stream beyond 2^31 - 1": ((opening(1), update(frames.MAX_WINDOW, 1) * 2), Reset(FLOW)),
    "6.9.2/3 INITIAL_WINDOW_SIZE beyond 2^31 - 1": (
        (frames.settings({Setting.INITIAL_WINDOW_SIZE: (1 << 32) - 1}),), Goaway(FLOW)),
    "6.10/1 several CONTINUATIONs": (
        (frame(HEADERS, END, 1, BLOCK) + frame(CONTINUATION, 0, 1) + frame(CONTINUATION, WHOLE, 1),), Answered()),
    "6.10/2 a CONTINUATION followed by DATA": (
        (frame(HEADERS, 0, 1, BLOCK), frame(CONTINUATION, 0, 1), frame(DATA, END, 1, b"x")), Goaway(PROTOCOL)),
    "6.10/3 CONTINUATION on stream 0": (
        (frame(HEADERS, END, 1, BLOCK), frame(CONTINUATION, WHOLE, 0)), Goaway(PROTOCOL)),
    "6.10/4 CONTINUATION after finished HEADERS": ((opening(1), frame(CONTINUATION, WHOLE, 1)), Goaway(PROTOCOL)),
    "6.10/5 CONTINUATION after a finished CONTINUATION": (
        (frame(HEADERS, 0, 1, BLOCK), frame(CONTINUATION, WHOLE, 1) * 2), Goaway(PROTOCOL)),
    "6.10/6 CONTINUATION after DATA": (
        (opening(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, WHOLE, 1)), Goaway(PROTOCOL)),
    "7/1 GOAWAY with an unknown code": ((frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\xff"),), Closed()),
    "7/2 RST_STREAM with an unknown code": ((opening(1), reset(1, 0xFF)), Alive()),
}  # fmt: skip

STREAMS: dict[str, tuple[tuple[Step, ...], Outcome]] = {
    "5.1/1 idle: DATA": ((frame(DATA, END, 1, b"x"),), Goaway(PROTOCOL)),
    "5.1/2 idle: RST_STREAM": ((reset(1),), Goaway(PROTOCOL)),
    "5.1/3 idle: WINDOW_UPDATE": ((update(100, 1),), Goaway(PROTOCOL)),
    "5.1/4 idle: CONTINUATION": ((frame(CONTINUATION, WHOLE, 1, BLOCK),), Goaway(PROTOCOL)),
    "5.1/5 half-closed: DATA": ((request(1, NEVER), frame(DATA, END, 1, b"x")), Reset(STREAM_CLOSED)),
    "5.1/6 half-closed: HEADERS": ((request(1, NEVER), opening(1)), Reset(STREAM_CLOSED)),
    "5.1/7 half-closed: CONTINUATION": ((request(1, NEVER), frame(CONTINUATION, WHOLE, 1, BLOCK)), Goaway(PROTOCOL)),
    "5.1/8 closed by RST_STREAM: DATA": ((opening(1), reset(), frame(DATA, END, 1, b"x")), Reset(STREAM_CLOSED)),
    "5.1/9 closed by RST_STREAM: HEADERS": ((opening(1), reset(), opening(1)), Goaway(STREAM_CLOSED)),
    "5.1/10 closed by RST_STREAM: CONTINUATION": (
        (opening(1), reset(), frame(CONTINUATION, WHOLE, 1, BLOCK)), Goaway(PROTOCOL)),
    "5.1/11 closed: DATA": ((request(1), Ended(1), frame(DATA, END, 1, b"x")), Reset(STREAM_CLOSED)),
    "5.1/12 closed: HEADERS": ((request(1), Ended(1), opening(1)), Goaway(STREAM_CLOSED)),
    "5.1/13 closed: CONTINUATION": ((request(1), Ended(1), frame(CONTINUATION, WHOLE, 1, BLOCK)), Goaway(PROTOCOL)),
    "5.1 closed: late RST_STREAM and WINDOW_UPDATE": ((request(1), Ended(1), reset(), update(1, 1)), Alive()),
    "5.1 half-closed (local): what was under way is ignored": (
        (opening(1, "/no.Such/Method"), Ended(1), message(1, end=False), trailers((b"a", b"b"))), Alive()),
    "5.1 half-closed (local): a push of the client": (
        (opening(1), frame(PUSH_PROMISE, WHOLE, 1, b"\0\0\0\2" + BLOCK)), Goaway(PROTOCOL)),
    "5.1.1/1 an even stream": ((opening(2),), Goaway(PROTOCOL)),
    "5.1.1/2 a lower stream": ((opening(5), opening(3)), Goaway(PROTOCOL)),
    "5.1.2/1 more streams than allowed": (
        (b"".join(opening(number) for number in range(1, 2051, 2)),), Reset(ErrorCode.REFUSED_STREAM, 2049)),
    "5.3.1/1 HEADERS that depend on themselves": (
        (frame(HEADERS, WHOLE | frames.PRIORITISED, 1, b"\0\0\0\1\xff" + request_prefix(ECHO, "t")), message(1)),
        Answered()),
    "5.3.1/2 PRIORITY that depends on itself": ((opening(1, ECHO), frame(PRIORITY, 0, 1, b"\0\0\0\1\xff"), message(1)),
        Answered()),
    "5.4.1/1 a broken PING": ((frame(PING, 0, 0, b"1234"),), Goaway(SIZE)),
}  # fmt: skip

MESSAGES: dict[str, tuple[tuple[Step, ...], Outcome]] = {
    "8.1/1 a second HEADERS that does not end": ((opening(1), trailers((b"a", b"b"), end=False)), Reset(PROTOCOL)),
    "8.1.2/1 a name in capitals": ((fields(extra=((b"X-TEST", b"ok"),)),), Reset(PROTOCOL)),
    "8.1.2/1 a name with a space": ((fields(extra=((b"x test", b"ok"),)),), Reset(PROTOCOL)),
    "8.1.2/1 a name with a colon": ((fields(extra=((b"x:test", b"ok"),)),), Reset(PROTOCOL)),
    "8.1.2/1 a name without letters": ((fields(extra=((b"", b"ok"),)),), Reset(PROTOCOL)),
    "8.1.2/1 a line end in a value": ((fields(extra=((b"x-test", b"ok\r\nx-other: no"),)),), Reset(PROTOCOL)),
    "8.1.2/1 a zero in a value": ((fields(extra=((b"x-test", b"o\0k"),)),), Reset(PROTOCOL)),
    "8.1.2.1/1 an unknown pseudo field": ((fields(test=b"ok"),), Reset(PROTOCOL)),
    "8.1.2.1/2 a pseudo field of responses": ((fields(status=b"200"),), Reset(PROTOCOL)),
    "8.1.2.1/3 a pseudo field in trailers": ((opening(1), trailers((b":method", b"POST"))), Reset(PROTOCOL)),
    "8.1.2.1/4 a pseudo field after others": ((fields(path=None, extra=((b":path", b"/"),)),), Reset(PROTOCOL)),
    "8.1.2.2/1 a connection field": ((fields(extra=((b"connection", b"keep-alive"),)),), Reset(PROTOCOL)),
    "8.1.2.2/1 a connection field in trailers": ((opening(1), trailers((b"connection", b"close"))), Reset(PROTOCOL)),
    "8.1.2.2/2 TE that is not trailers": ((fields(extra=((b"te", b"trailers, deflate"),)),), Reset(PROTOCOL)),
    "8.1.2.3/1 an empty path": ((fields(path=b""),), Reset(PROTOCOL)),
    "8.1.2.3/2 no method": ((fields(method=None),), Reset(PROTOCOL)),
    "8.1.2.3/3 no scheme": ((fields(scheme=None),), Reset(PROTOCOL)),
    "8.1.2.3/4 no path": ((fields(path=None),), Reset(PROTOCOL)),
    "8.1.2.3/5 two methods": ((opening(1, more=encode(((b":method", b"POST"),))),), Reset(PROTOCOL)),
    "8.1.2.3/6 two schemes": ((frames.headers(1, b"\x86" + BLOCK, False),), Reset(PROTOCOL)),
    "8.1.2.3/7 two paths": ((frames.headers(1, b"\x84" + BLOCK, False),), Reset(PROTOCOL)),
    "8.1.2.6/1 a content-length that is wrong": (
        (fields(extra=((b"content-length", b"1"),)), message(1, b"test")), Reset(PROTOCOL)),
    "8.1.2.6/2 a content-length that is wrong over several DATA": (
        (fields(extra=((b"content-length", b"100"),)), message(1, b"test", end=False), message(1, b"test")),
        Reset(PROTOCOL)),
    "8.1.2.6 a content-length without DATA": ((fields(end=True, extra=((b"content-length", b"1"),)),), Reset(PROTOCOL)),
    "8.1.2.6 a content-length that trailers cut short": (
        (fields(extra=((b"content-length", b"100"),)), message(1, end=False), trailers((b"a", b"b"))), Reset(PROTOCOL)),
    "8.1.2.6 a content-length that is no number": ((fields(extra=((b"content-length", b"x"),)),), Reset(PROTOCOL)),
    "8.1.2.6 a content-length that is right": (
        (fields(path=ECHO.encode(), extra=((b"content-length", b"9"),)), message(1, b"test")), Answered()),
    "8.2/1 PUSH_PROMISE": ((opening(1), frame(PUSH_PROMISE, WHOLE, 1, b"\0\0\0\2" + BLOCK)), Goaway(PROTOCOL)),
}  # fmt: skip

COMPRESSED: dict[str, tuple[tuple[Step, ...], Outcome]] = {
    "hpack/2.3.3/1 an index beyond the tables": ((block(b"\xc6"),), Goaway(COMPRESSION)),
    "hpack/2.3.3/2 a literal whose name is beyond the tables": ((block(b"\x7f\x07\x02ok"),), Goaway(COMPRESSION)),
    "hpack/4.2/1 a table size update at the end": ((block(b"\x20"),), Goaway(COMPRESSION)),
    "hpack/5.2/1 Huffman padding beyond seven bits": (
        (block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),), Goaway(COMPRESSION)),
    "hpack/5.2/2 Huffman padding of zeros": (
        (block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),), Goaway(COMPRESSION)),
    "hpack/5.2/3 the end-of-string symbol": (
        (block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),), Goaway(COMPRESSION)),
    "hpack/6.1/1 index 0": ((block(b"\x80"),), Goaway(COMPRESSION)),
    "hpack/6.3/1 a table beyond the setting": (
        (frames.headers(1, b"\x3f\xe2\x1f" + BLOCK, False),), Goaway(COMPRESSION)),
}  # fmt: skip

CASES = GENERIC | FRAMES | STREAMS | MESSAGES | COMPRESSED


@pytest.mark.parametrize(("steps", "outcome"), CASES.values(), ids=CASES.keys())
async def test_h2spec(steps, outcome, caplog):
    async with serving() as (made, port), raw(port) as peer:
        peer.send(HELLO)
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            else:
                await peer.until_ended(step.stream_id)
        await check(peer, outcome)
        peer.writer.close()
        await settled(made)
    assert not caplog.records


async def check(peer, outcome):
    match outcome:
        case Goaway(code):
            assert await peer.goaway() is code
        case Reset(code, stream_id):
            ended = await peer.until(RST_STREAM, stream_id=stream_id)
            assert ErrorCode(frames.word(ended.payload)) is code
            await peer.alive()
        case Answered(stream_id, head):
            answer = await peer.until_ended(stream_id)
            assert head in answer[0].payload
            assert answer[-1].kind == HEADERS
            await peer.alive()
        case Alive():
            await peer.alive()
        case Closed():
            await peer.until_closed()
            assert all(frames.word(item.payload, 4) == 0 for item in peer.frames_received if item.kind == GOAWAY)


async def settled(made):
    """Nothing of a peer stays once it has gone."""
    while made._connections or made.calls:
        made._progress.clear()
        await made._progress.wait()


def window(size: int) -> bytes:
    return frames.settings({Setting.INITIAL_WINDOW_SIZE: size})


async def data_of(peer, stream_id=1):
    return (await peer.until(DATA, stream_id=stream_id)).payload


async def test_h2spec_3_5_2_an_invalid_preface():
    async with serving() as (made, port), raw(port) as peer:
        peer.send(b"INVALID CONNECTION PREFACE\r\n\r\n")
        assert await peer.goaway() is PROTOCOL
        assert made.closed_for == {"not an HTTP/2 preface": 1}


async def test_h2spec_3_5_settings_come_first():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(frames.PREFACE, frame(PING, 0, 0, b"12345678"))
        assert await peer.goaway() is PROTOCOL
        assert peer.frames_received[0].kind == SETTINGS


async def test_h2spec_6_5_3_settings_are_acknowledged_at_once_and_the_last_value_counts():
    async with serving() as (_, port), raw(port) as peer:
        both = b"\0\4\0\0\0\x64" + b"\0\4\0\0\0\1"
        peer.send(frames.PREFACE, frame(SETTINGS, 0, 0, both))
        assert (await peer.until(SETTINGS, frames.ACK)).payload == b""
        peer.send(request(1))
        assert len(await data_of(peer)) == 1


async def test_h2spec_6_7_1_a_ping_is_answered_with_its_payload():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(HELLO, frame(PING, 0, 0, b"h2spec\0\0"))
        assert (await peer.until(PING)) == (PING, frames.ACK, 0, b"h2spec\0\0")


async def test_h2spec_6_9_1_no_more_data_than_the_window():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(frames.PREFACE, window(1), request(1, payload=b"abc"))
        assert await data_of(peer) == b"\0"
        peer.send(update(2, 1))
        assert await data_of(peer) == b"\0\0"
        peer.send(update(100, 1))
        assert await data_of(peer) == b"\0\x03abc"
        assert (await peer.until_ended(1))[-1].kind == HEADERS


async def test_h2spec_6_9_1_the_window_of_the_connection_binds_all_streams():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(frames.PREFACE, window(1 << 20), *(request(n, payload=b"x" * 16_000) for n in (1, 3, 5, 7, 9)))
        await peer.alive()
        received = b"".join(item.payload for item in peer.frames_received if item.kind == DATA)
        assert len(received) == frames.DEFAULT_WINDOW
        peer.send(update(1 << 20))
        for stream_id in (1, 3, 5, 7, 9):
            ended = await peer.until_ended(stream_id)
            assert sum(len(item.payload) for item in ended if item.kind == DATA) == 16_005


async def test_h2spec_6_9_2_1_a_changed_initial_window_opens_streams_that_wait():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(frames.PREFACE, window(0), request(1))
        await peer.alive()
        assert not any(item.kind == DATA for item in peer.frames_received)
        peer.send(window(1))
        assert await data_of(peer) == b"\0"


async def test_h2spec_6_9_2_2_a_window_may_become_negative():
    async with serving() as (_, port), raw(port) as peer:
        peer.send(frames.PREFACE, window(3), request(1))
        assert await data_of(peer) == b"\0\0\0"
        peer.send(window(2), update(1, 1))  # from -1 to 0
        await peer.alive()
        assert sum(item.kind == DATA for item in peer.frames_received) == 1
        peer.send(update(1, 1))
        assert await data_of(peer) == b"\0"


async def test_a_peer_that_shrinks_the_header_table_hears_that_it_shrank():
    """RFC 7541, section 4.2; python-hyper's decoder refuses a block that does not say so."""
    async with serving() as (_, port), raw(port) as peer:
        peer.send(frames.PREFACE, frames.settings({Setting.HEADER_TABLE_SIZE: 0}), request(1), request(3))
        decoder = hpack.Decoder()
        decoder.max_allowed_table_size = 0
        for stream_id in (1, 3):
            for item in await peer.until_ended(stream_id):
                if item.kind == HEADERS:
                    assert decoder.decode(item.payload)


async def test_two_announcements_end_a_connection_and_running_calls_end_first():
    """RFC 9113, section 6.8."""
    async with serving() as (made, port), raw(port) as peer:
        peer.send(HELLO, opening(1, ECHO))
        await peer.alive()
        stopping = asyncio.ensure_future(made.stop(5))
        first = await peer.until(GOAWAY)
        peer.send(opening(3, ECHO))  # crosses the announcement
        ping = await peer.until(PING)
        peer.send(frame(PING, frames.ACK, 0, ping.payload))
        second = await peer.until(GOAWAY)
        peer.send(opening(5, ECHO), message(3, b"three"), message(1, b"one"))
        refused = await peer.until(RST_STREAM)
        assert [frames.word(item.payload) for item in (first, second)] == [frames.MAX_STREAM_ID, 3]
        assert (refused.stream_id, frames.word(refused.payload)) == (5, ErrorCode.REFUSED_STREAM)
        for stream_id, text in ((3, b"three"), (1, b"one")):
            assert any(item.payload.endswith(text) for item in await peer.until_ended(stream_id))
        await peer.until_closed()
        await stopping
