"""Servers that answer what is no gRPC response, on real sockets: what a call says of it, and that its neighbours go on.

The statuses are those of grpc/doc/http-grpc-status-mapping.md and of PROTOCOL-HTTP2.md.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from serving.transport import ChannelOptions, Code, RpcError, Transport, channel, frames
from serving.transport.call import OK_TRAILERS, RESPONSE_HEAD, frame_message
from serving.transport.frames import FrameReader, frame
from serving.transport.hpack import encode

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
NOT_FOUND = (b"grpc-status", b"5")
WRONG = {
    "no content-type": (block(STATUS) + data(REPLY) + END, Code.UNKNOWN),
    "another content-type": (
        block(STATUS, (b"content-type", b"application/grpc-web")) + data(REPLY) + END,
        Code.UNKNOWN,
    ),
    "no HTTP status": (block(TYPE) + data(REPLY) + END, Code.INTERNAL),
    "two HTTP statuses": (block(STATUS, STATUS, TYPE) + data(REPLY) + END, Code.INTERNAL),
    "a status after a field": (block(TYPE, STATUS) + data(REPLY) + END, Code.INTERNAL),
    "a path": (block(STATUS, (b":path", b"/"), TYPE) + data(REPLY) + END, Code.INTERNAL),
    "upper case": (block(STATUS, TYPE, (b"X-Loud", b"1")) + data(REPLY) + END, Code.INTERNAL),
    "a line feed": (block(STATUS, TYPE, (b"x", b"a\nb")) + data(REPLY) + END, Code.INTERNAL),
    "a field of connections": (block(STATUS, TYPE, (b"connection", b"close")) + data(REPLY) + END, Code.INTERNAL),
    "a gRPC status in place of HTTP's": (block((b":status", b"503"), TYPE, NOT_FOUND, end=True), Code.NOT_FOUND),
    "HTTP's status before gRPC's": (block((b":status", b"503"), TYPE) + data(REPLY) + END, Code.UNAVAILABLE),
    "data before the head": (data(REPLY) + HEAD + END, Code.INTERNAL),
    "trailers that do not end": (HEAD + data(REPLY) + frames.headers(1, OK_TRAILERS, False), Code.INTERNAL),
    "two heads": (HEAD + HEAD + data(REPLY) + END, Code.INTERNAL),
    "no trailers": (HEAD + data(REPLY, end=True), Code.INTERNAL),
    "trailers without a status": (HEAD + data(REPLY) + block((b"x", b"y"), end=True), Code.UNKNOWN),
    "a head alone without a status": (block(STATUS, TYPE, end=True), Code.UNKNOWN),
    "a status that is no number": (HEAD + data(REPLY) + block((b"grpc-status", b"x"), end=True), Code.UNKNOWN),
    "a status that is unknown": (HEAD + data(REPLY) + block((b"grpc-status", b"77"), end=True), Code.UNKNOWN),
    "a zero too many": (HEAD + data(REPLY) + block((b"grpc-status", b"00"), end=True), Code.UNKNOWN),
    "pseudo fields in trailers": (HEAD + data(REPLY) + block(STATUS, OK, end=True), Code.INTERNAL),
    "upper case in trailers": (HEAD + data(REPLY) + block(OK, (b"X", b"1"), end=True), Code.INTERNAL),
    "zeros in trailers": (HEAD + data(REPLY) + block(OK, (b"x", b"\0"), end=True), Code.INTERNAL),
    "an unknown grpc-encoding": (block(STATUS, TYPE, (b"grpc-encoding", b"zstd")) + data(REPLY) + END, Code.INTERNAL),
    "compression without its name": (HEAD + data(b"\1" + REPLY[1:]) + END, Code.INTERNAL),
    "half a message": (HEAD + data(REPLY, REPLY[:7]) + END, Code.INTERNAL),
    "less than a message": (HEAD + data(REPLY[:7]) + END, Code.INTERNAL),
    "no message": (HEAD + END, Code.INTERNAL),
    "two messages": (HEAD + data(REPLY, REPLY) + END, Code.INTERNAL),
    "two messages at once": (HEAD + data(REPLY + REPLY) + END, Code.INTERNAL),
    "messages without end": (HEAD + data(*[REPLY] * 3), Code.INTERNAL),
    "a message too large": (HEAD + data(b"\0\x7f\0\0\0"), Code.RESOURCE_EXHAUSTED),
}
RIGHT = {
    "a reply": HEAD + data(REPLY) + END,
    "more content-type": block(STATUS, (b"content-type", b"application/grpc+proto")) + data(REPLY) + END,
    "a charset": block(STATUS, (b"content-type", b"application/grpc;charset=utf-8")) + data(REPLY) + END,
    "early hints": block((b":status", b"103"), (b"link", b"x")) + HEAD + data(REPLY) + END,
    "a reply in pieces": HEAD + data(REPLY[:1], REPLY[1:6], REPLY[6:]) + END,
    "its length": block(STATUS, TYPE, (b"content-length", b"10")) + data(REPLY) + END,
}


@asynccontextmanager
async def answering(sent):
    """A client of a server that answers its first call with these bytes, and the next ones well."""

    async def meet(reader, writer):
        writer.write(frames.settings({}))
        cutter, rest = FrameReader(), await reader.readexactly(len(frames.PREFACE))
        rest = b""
        while True:
            for kind, _, number, _ in cutter.feed(rest):
                if kind == frames.HEADERS:
                    writer.write(sent if number == 1 else b"".join(response(number)))
            if not (rest := await reader.read(65_536)):
                break
        writer.close()

    listener = await asyncio.start_server(meet, "127.0.0.1", 0)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    client = channel(Transport.NATIVE, address, ChannelOptions(max_receive_bytes=1000))
    try:
        yield client
    finally:
        await client.close()
        listener.close()


def response(number):
    return frames.whole_response(number, RESPONSE_HEAD, frame_message(GOOD), OK_TRAILERS)


async def asked(client, is_stub):
    if is_stub:
        return await client.stub_channel.unary_unary(PATH)(b"x", timeout=5)
    return await client.unary(PATH, b"x", 5)


async def failure(sent, is_stub):
    async with answering(sent) as client:
        with pytest.raises(RpcError) as caught:
            await asked(client, is_stub)
        assert await asked(client, is_stub) == GOOD  # on the same connection
        assert not client._links[0].protocol.connection.streams
    return caught.value


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_no_response_has_a_status_and_costs_its_call_alone(sent, code, is_stub):
    error = await failure(sent, is_stub)
    assert error.code is code, error
    assert error.details or code is Code.NOT_FOUND


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
async def test_web_pages_have_the_statuses_of_the_mapping(is_stub):
    for sent, code in PAGES:
        error = await failure(sent, is_stub)
        assert error.code is code, (sent, error)
        assert "HTTP status" in error.details


@pytest.mark.parametrize("is_stub", [False, True], ids=["unary", "stub"])
@pytest.mark.parametrize("sent", RIGHT.values(), ids=RIGHT.keys())
async def test_what_is_a_response_is_taken(sent, is_stub):
    async with answering(sent) as client:
        assert await asked(client, is_stub) == b"reply"


async def test_a_stream_of_replies_ends_where_it_breaks():
    async with answering(HEAD + data(REPLY, REPLY[:7]) + END) as client:
        call = client.stub_channel.unary_stream(PATH)(b"x", timeout=5)
        assert await call.read() == b"reply"
        with pytest.raises(RpcError, match="inside a message"):
            await call.read()
