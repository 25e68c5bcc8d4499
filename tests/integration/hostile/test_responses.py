"""Servers that answer what is no gRPC response, on real sockets: what a call says of it, and that its neighbours go on.

The statuses are those of grpc/doc/http-grpc-status-mapping.md and of PROTOCOL-HTTP2.md.
"""

import gzip
from contextlib import asynccontextmanager

import hpack
import pytest

from serving.transport import ChannelOptions, Code, RpcError, frames
from serving.transport.call import OK_TRAILERS, RESPONSE_HEAD, frame_message
from serving.transport.frames import ErrorCode, frame
from serving.transport.hpack import encode
from tests.integration.http2_peer import polite, scripted

PATH = "/test.Service/Method"
GOOD = b"good"
STATUS, TYPE, OK = (b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"0")


def block(*fields, end=False):
    return frames.headers(1, encode(fields), end)


def data(*payloads, end=False):
    return b"".join(frame(frames.DATA, frames.END_STREAM if end else 0, 1, payload) for payload in payloads)


HEAD, END, REPLY = (
    frames.headers(1, RESPONSE_HEAD, False),
    frames.headers(1, OK_TRAILERS, True),
    frame_message(b"reply"),
)


def long(size):
    return block(STATUS, TYPE, (b"content-length", size))


ASIDE = b"".join(
    (
        frame(0xEE, 0xFF, 1, b"unknown"),
        frame(frames.PRIORITY, 0, 1, b"\0\0\0\3\x0f"),
        frame(frames.PING, 0, 0, b"12345678"),
        frames.settings({frames.Setting.HEADER_TABLE_SIZE: 0, frames.Setting.MAX_CONCURRENT_STREAMS: 50}),
        frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 100_000}),
        frames.window_update(0, 1000) + frames.window_update(1, 1000),
        frame(frames.DATA, 0, 1),
    )
)
"""What may come between the frames of a response."""


def encoded_by_another():
    """By Huffman's code, with fields put into the dynamic table and taken from it."""
    other = hpack.Encoder()
    heads = [frames.headers(1, other.encode(fields, huffman=True), end) for fields, end in (
        ([STATUS, TYPE, ("x-same", "value")], False), ([OK, ("x-same", "value")], True))]  # fmt: skip
    return heads[0] + data(REPLY) + heads[1]


def web(status, *more):
    return (
        block((b":status", status), (b"content-type", b"text/html"), *more) + data(b"<html>", end=True),
        block((b":status", status), (b"content-type", b"text/html"), *more, end=True),
    )


HTTP = {
    b"400": Code.INTERNAL,
    b"401": Code.UNAUTHENTICATED,
    b"403": Code.PERMISSION_DENIED,
    b"404": Code.UNIMPLEMENTED,
    b"429": Code.UNAVAILABLE,
    b"502": Code.UNAVAILABLE,
    b"503": Code.UNAVAILABLE,
    b"504": Code.UNAVAILABLE,
    b"500": Code.UNKNOWN,
    b"418": Code.UNKNOWN,
    b"302": Code.UNKNOWN,
    b"200": Code.UNKNOWN,
}
PAGES = [(sent, code) for status, code in HTTP.items() for sent in web(status)]
LARGE = (b"large", b"v" * 17_000)
BOMB = gzip.compress(bytes(100_000))
NOT_FOUND = (b"grpc-status", b"5")
WRONG = {
    "no content-type": (block(STATUS) + data(REPLY) + END, Code.UNKNOWN),
    "another content-type": (
        block(STATUS, (b"content-type", b"application/grpc-web")) + data(REPLY) + END,
        Code.UNKNOWN,
    ),
    "a gRPC status in place of HTTP's": (block((b":status", b"503"), TYPE, NOT_FOUND, end=True), Code.NOT_FOUND),
    "HTTP's status before gRPC's": (block((b":status", b"503"), TYPE) + data(REPLY) + END, Code.UNAVAILABLE),
    "no trailers": (HEAD + data(REPLY, end=True), Code.INTERNAL),
    "trailers without a status": (HEAD + data(REPLY) + block((b"x", b"y"), end=True), Code.UNKNOWN),
    "a head alone without a status": (block(STATUS, TYPE, end=True), Code.UNKNOWN),
    "a status that is no number": (HEAD + data(REPLY) + block((b"grpc-status", b"x"), end=True), Code.UNKNOWN),
    "a status that is unknown": (HEAD + data(REPLY) + block((b"grpc-status", b"77"), end=True), Code.UNKNOWN),
    "a zero too many": (HEAD + data(REPLY) + block((b"grpc-status", b"00"), end=True), Code.UNKNOWN),
    "an unknown grpc-encoding": (block(STATUS, TYPE, (b"grpc-encoding", b"zstd")) + data(REPLY) + END, Code.INTERNAL),
    "compression without its name": (HEAD + data(b"\1" + REPLY[1:]) + END, Code.INTERNAL),
    "half a message": (HEAD + data(REPLY, REPLY[:7]) + END, Code.INTERNAL),
    "less than a message": (HEAD + data(REPLY[:7]) + END, Code.INTERNAL),
    "no message": (HEAD + END, Code.INTERNAL),
    "two messages": (HEAD + data(REPLY, REPLY) + END, Code.INTERNAL),
    "two messages at once": (HEAD + data(REPLY + REPLY) + END, Code.INTERNAL),
    "messages without end": (HEAD + data(*[REPLY] * 3), Code.INTERNAL),
    "a bomb": (
        block(STATUS, TYPE, (b"grpc-encoding", b"gzip")) + data(b"\1" + len(BOMB).to_bytes(4, "big") + BOMB) + END,
        Code.RESOURCE_EXHAUSTED,
    ),
    "fields too large": (block(STATUS, TYPE, LARGE) + data(REPLY) + END, Code.RESOURCE_EXHAUSTED),
    "fields too large without an end": (block(STATUS, TYPE, LARGE), Code.RESOURCE_EXHAUSTED),
    "trailers too large": (HEAD + data(REPLY) + block(OK, LARGE, end=True), Code.RESOURCE_EXHAUSTED),
    "a status with fields too large": (block(STATUS, TYPE, OK, LARGE, end=True), Code.RESOURCE_EXHAUSTED),
    "a message too large": (HEAD + data(b"\0\x7f\0\0\0"), Code.RESOURCE_EXHAUSTED),
}
MALFORMED = {
    "no HTTP status": block(TYPE) + data(REPLY) + END,
    "two HTTP statuses": block(STATUS, STATUS, TYPE) + data(REPLY) + END,
    "a status after a field": block(TYPE, STATUS) + data(REPLY) + END,
    "a path": block(STATUS, (b":path", b"/"), TYPE) + data(REPLY) + END,
    "upper case": block(STATUS, TYPE, (b"X-Loud", b"1")) + data(REPLY) + END,
    "a line feed": block(STATUS, TYPE, (b"x", b"a\nb")) + data(REPLY) + END,
    "a field of connections": block(STATUS, TYPE, (b"connection", b"close")) + data(REPLY) + END,
    "data before the head": data(REPLY) + HEAD + END,
    "trailers that do not end": HEAD + data(REPLY) + frames.headers(1, OK_TRAILERS, False),
    "two heads": HEAD + HEAD + data(REPLY) + END,
    "pseudo fields in trailers": HEAD + data(REPLY) + block(STATUS, OK, end=True),
    "upper case in trailers": HEAD + data(REPLY) + block(OK, (b"X", b"1"), end=True),
    "zeros in trailers": HEAD + data(REPLY) + block(OK, (b"x", b"\0"), end=True),
    "less than its length": long(b"11") + data(REPLY) + END,
    "more than its length": long(b"9") + data(REPLY) + END,
    "a byte more than its length": long(b"10") + data(REPLY, b"x") + END,
    "more than its length, without end": long(b"9") + data(REPLY),
    "a length and nothing": long(b"10") + END,
    "a length and padding": long(b"11") + frame(frames.DATA, frames.PADDED, 1, b"\1" + REPLY + b"\0") + END,
    "a status with a length": block(STATUS, TYPE, (b"content-length", b"1"), OK, end=True),
    "a length that is no number": long(b"ten") + data(REPLY) + END,
}
RIGHT = {
    "a reply": HEAD + data(REPLY) + END,
    "more content-type": block(STATUS, (b"content-type", b"application/grpc+proto")) + data(REPLY) + END,
    "a charset": block(STATUS, (b"content-type", b"application/grpc;charset=utf-8")) + data(REPLY) + END,
    "early hints": block((b":status", b"103"), (b"link", b"x")) + HEAD + data(REPLY) + END,
    "a reply in pieces": HEAD + data(REPLY[:1], REPLY[1:6], REPLY[6:]) + END,
    "a head in pieces": (
        frame(frames.HEADERS, 0, 1, RESPONSE_HEAD[:3])
        + frame(frames.CONTINUATION, 0, 1)
        + frame(frames.CONTINUATION, frames.END_HEADERS, 1, RESPONSE_HEAD[3:])
        + data(REPLY)
        + frame(frames.HEADERS, frames.END_STREAM, 1, OK_TRAILERS)
        + frame(frames.CONTINUATION, frames.END_HEADERS, 1)
    ),
    "padding and a priority": (
        frame(
            frames.HEADERS,
            frames.END_HEADERS | frames.PADDED | frames.PRIORITISED,
            1,
            b"\2\0\0\0\3\x0f" + RESPONSE_HEAD + bytes(2),
        )
        + frame(frames.DATA, frames.PADDED, 1, b"\xc8" + REPLY + bytes(200))
        + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM | frames.PADDED, 1, b"\0" + OK_TRAILERS)
    ),
    "other frames between": ASIDE.join((HEAD, data(REPLY[:3]), data(REPLY[3:]), END)),
    "Huffman's code and the dynamic table": encoded_by_another(),
    "unknown fields": (
        block(STATUS, TYPE, (b"alt-svc", b"clear"), (b"grpc-encoding", b"identity"))
        + data(REPLY)
        + block(OK, (b"x-other", b"1"), end=True)
    ),
    "its length": long(b"10") + data(REPLY) + END,
    "its length in pieces": long(b"10") + data(REPLY[:1], REPLY[1:]) + END,
    "its length and padding": long(b"10") + frame(frames.DATA, frames.PADDED, 1, b"\1" + REPLY + b"\0") + END,
}


@asynccontextmanager
async def answering(sent):
    """A client of a server that answers its first call with these bytes, and the next ones well; and the codes with
    which the client reset calls."""
    resets = []

    async def meet(peer):
        peer.send(frames.settings({}))
        await peer.preface()
        while (item := await peer.next_frame()) is not None:
            if item.kind == frames.HEADERS:
                peer.send(sent if item.stream_id == 1 else whole(item.stream_id))
            elif item.kind == frames.RST_STREAM:
                resets.append(ErrorCode(frames.word(item.payload)))

    async with scripted(meet) as port:
        client = polite(port, ChannelOptions(max_receive_bytes=1000))
        try:
            yield client, resets
        finally:
            await client.close()


def whole(number):
    return b"".join(frames.whole_response(number, RESPONSE_HEAD, frame_message(GOOD), OK_TRAILERS))


async def asked(client, is_stub):
    if is_stub:
        return await client.stub_channel.unary_unary(PATH)(b"x", timeout=5)
    return await client.unary(PATH, b"x", 5)


async def failure(sent, is_stub):
    """What the caller hears, and the codes of the resets that the server hears."""
    async with answering(sent) as (client, resets):
        with pytest.raises(RpcError) as caught:
            await asked(client, is_stub)
        assert await asked(client, is_stub) == GOOD  # on the same connection
        assert not client._links[0].protocol.connection.streams
        return caught.value, list(resets)


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_no_response_has_a_status_and_costs_its_call_alone(sent, code, is_stub):
    error, _ = await failure(sent, is_stub)
    assert error.code is code, error
    assert error.details or code is Code.NOT_FOUND


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_http_forbids_is_a_stream_error(sent, is_stub):
    """RFC 9113, section 8.1.1."""
    error, resets = await failure(sent, is_stub)
    assert (error.code, resets) == (Code.INTERNAL, [ErrorCode.PROTOCOL_ERROR])


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
async def test_web_pages_have_the_statuses_of_the_mapping(is_stub):
    for sent, code in PAGES:
        error, resets = await failure(sent, is_stub)
        assert error.code is code, (sent, error)
        assert "HTTP status" in error.details
        assert ErrorCode.PROTOCOL_ERROR not in resets


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
@pytest.mark.parametrize("sent", RIGHT.values(), ids=RIGHT.keys())
async def test_what_is_a_response_is_taken(sent, is_stub):
    async with answering(sent) as (client, resets):
        assert await asked(client, is_stub) == b"reply"
        assert not resets


async def test_a_stream_of_replies_ends_where_it_breaks():
    async with answering(HEAD + data(REPLY, REPLY[:7]) + END) as (client, _):
        call = client.stub_channel.unary_stream(PATH)(b"x", timeout=5)
        assert await call.read() == b"reply"
        with pytest.raises(RpcError, match="inside a message"):
            await call.read()
