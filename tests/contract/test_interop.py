"""The public gRPC interoperability cases, each implementation serving each other's client
(grpc/doc/interop-test-descriptions.md).

Messages are plain bytes: the cases are about the transport. `timeout_on_sleeping_server` of unary calls is in
test_transport.py.
"""

import asyncio
import itertools
from contextlib import asynccontextmanager

import grpc
import pytest

from serving.transport import ChannelOptions, Code, Compression, RpcError, ServerOptions, Transport, channel, server

LARGE = 64 << 20
STATUSES = {
    b"status_code_and_message": "test status message",
    b"special_status_message": "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
}
"""Requests that fail, and how."""
PAIRS = list(itertools.product(Transport, Transport))


class Service:
    """Replies are told by requests, as in the public test service."""

    async def empty_call(self, request, context):
        return b""

    async def unary_call(self, request, context):
        metadata = dict(context.invocation_metadata())
        if "x-grpc-test-echo-initial" in metadata:
            await context.send_initial_metadata((("x-grpc-test-echo-initial", metadata["x-grpc-test-echo-initial"]),))
            context.set_trailing_metadata(
                (("x-grpc-test-echo-trailing-bin", metadata["x-grpc-test-echo-trailing-bin"]),)
            )
        if request in STATUSES:
            context.set_code(grpc.StatusCode.UNKNOWN)
            context.set_details(STATUSES[request])
        return request

    async def streaming_input_call(self, requests, context):
        return b"%d" % sum([len(request) async for request in requests])

    async def streaming_output_call(self, request, context):
        for size in request.split():
            yield b"x" * int(size)

    async def full_duplex_call(self, requests, context):
        async for request in requests:
            if request in STATUSES:
                await context.abort(grpc.StatusCode.UNKNOWN, STATUSES[request])
            yield request


def register(made):
    service = Service()
    handlers = {
        "EmptyCall": grpc.unary_unary_rpc_method_handler(service.empty_call),
        "UnaryCall": grpc.unary_unary_rpc_method_handler(service.unary_call),
        "StreamingInputCall": grpc.stream_unary_rpc_method_handler(service.streaming_input_call),
        "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(service.streaming_output_call),
        "FullDuplexCall": grpc.stream_stream_rpc_method_handler(service.full_duplex_call),
    }
    made.registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))


class Stub:
    def __init__(self, stub_channel):
        self.channel = stub_channel
        self.empty = stub_channel.unary_unary("/test.Service/EmptyCall")
        self.unary = stub_channel.unary_unary("/test.Service/UnaryCall")
        self.inputs = stub_channel.stream_unary("/test.Service/StreamingInputCall")
        self.outputs = stub_channel.unary_stream("/test.Service/StreamingOutputCall")
        self.duplex = stub_channel.stream_stream("/test.Service/FullDuplexCall")


@asynccontextmanager
async def connected(pair):
    made = server(pair[0], ServerOptions(max_receive_bytes=LARGE + 100, max_send_bytes=LARGE + 100))
    register(made)
    address = f"127.0.0.1:{made.add_port('127.0.0.1:0')}"
    await made.start()
    client = channel(pair[1], address, ChannelOptions(max_receive_bytes=LARGE + 100, max_send_bytes=LARGE + 100))
    try:
        yield Stub(client.stub_channel)
    finally:
        await client.close()
        await made.stop(0)


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0].value}-serves-{pair[1].value}")
async def stub(request):
    async with connected(request.param) as made:
        yield made


async def test_empty_unary(stub):
    assert await stub.empty(b"", timeout=10) == b""


@pytest.mark.parametrize("size", [271_828, LARGE])
async def test_large_unary(stub, size):
    assert await stub.unary(b"x" * size, timeout=40) == b"x" * size


async def test_client_streaming(stub):
    sizes = (27_182, 8, 1828, 45_904)
    assert await stub.inputs(iter([b"x" * size for size in sizes]), timeout=10) == b"74922"


async def test_server_streaming(stub):
    received = [len(reply) async for reply in stub.outputs(b"31415 9 2653 58979", timeout=10)]
    assert received == [31_415, 9, 2653, 58_979]


async def test_ping_pong(stub):
    call = stub.duplex(timeout=10)
    for size in (27_182, 8, 1828, 45_904):
        await call.write(b"x" * size)
        assert await call.read() == b"x" * size
    await call.done_writing()
    assert await call.read() is None


async def test_empty_stream(stub):
    call = stub.duplex(timeout=10)
    await call.done_writing()
    assert await call.read() is None


async def test_cancel_after_begin(stub):
    call = stub.inputs(timeout=10)
    await call.wait_for_connection()
    call.cancel()
    assert (await call.code()).value in {Code.CANCELLED, grpc.StatusCode.CANCELLED.value}


async def test_cancel_after_first_response(stub):
    call = stub.duplex(timeout=10)
    await call.write(b"x" * 27_182)
    assert len(await call.read()) == 27_182
    call.cancel()
    assert (await call.code()).value in {Code.CANCELLED, grpc.StatusCode.CANCELLED.value}


async def test_timeout_on_sleeping_server(stub):
    call = stub.duplex(timeout=0.05)
    await call.write(b"x" * 27_182)
    with pytest.raises(RpcError) as caught:
        while await call.read() is not None:
            pass
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_custom_metadata(stub):
    sent = (("x-grpc-test-echo-initial", "test_initial"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"))
    call = stub.unary(b"x", timeout=10, metadata=sent)
    assert await call == b"x"
    assert dict(await call.initial_metadata())["x-grpc-test-echo-initial"] == "test_initial"
    assert dict(await call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\xab\xab\xab"


@pytest.mark.parametrize("request_", STATUSES, ids=lambda request: request.decode())
async def test_status_code_and_message_also_with_special_letters(stub, request_):
    for reply in (stub.unary(request_, timeout=10), stub.duplex(iter([request_]), timeout=10).read()):
        with pytest.raises(RpcError) as caught:
            await reply
        assert (caught.value.code, caught.value.details) == (Code.UNKNOWN, STATUSES[request_])


async def failed(call):
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value.code


@pytest.mark.parametrize(
    "path",
    ["/test.Service/UnimplementedCall", "/test.UnimplementedService/UnimplementedCall"],
    ids=["method", "service"],
)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].value}-serves-{pair[1].value}")
async def test_unimplemented_method_and_service(pair, path):
    requests = [b"x"] * 3 if pair[1] is Transport.NATIVE else []
    """grpcio's client may take one that it cannot send any more for an internal error."""
    async with connected(pair) as made:
        make = made.channel
        assert await failed(make.unary_unary(path)(b"", timeout=10)) is Code.UNIMPLEMENTED
        assert await failed(make.unary_stream(path)(b"", timeout=10).read()) is Code.UNIMPLEMENTED
        assert await failed(make.stream_unary(path)(iter(requests), timeout=10)) is Code.UNIMPLEMENTED
        assert await failed(make.stream_stream(path)(iter(requests), timeout=10).read()) is Code.UNIMPLEMENTED
        assert await made.empty(b"", timeout=10) == b""


@pytest.mark.parametrize("server_kind", list(Transport), ids=lambda kind: kind.value)
async def test_compressed_unary_from_grpcios_client(server_kind):
    made = server(server_kind)
    register(made)
    address = f"127.0.0.1:{made.add_port('127.0.0.1:0')}"
    await made.start()
    async with grpc.aio.insecure_channel(address) as client:
        call = client.unary_unary("/test.Service/UnaryCall")
        assert await call(b"x" * 271_828, compression=grpc.Compression.Gzip, timeout=10) == b"x" * 271_828
    await made.stop(0)


WITHOUT_END = [None, float("inf"), 1e300, 1e12]


@pytest.mark.parametrize("timeout_s", WITHOUT_END)
async def test_a_timeout_that_nobody_lives_to_see_is_none(stub, timeout_s):
    assert await stub.unary(b"x", timeout=timeout_s) == b"x"
    assert [len(reply) async for reply in stub.outputs(b"3 4", timeout=timeout_s)] == [3, 4]
    assert await stub.inputs(iter([b"x"]), timeout=timeout_s) == b"1"


@pytest.mark.parametrize("kind", list(Transport), ids=lambda kind: kind.value)
@pytest.mark.parametrize("timeout_s", WITHOUT_END)
async def test_a_channels_own_calls_take_any_timeout(kind, timeout_s):
    made = server(Transport.NATIVE)
    made.add_bytes_handler("/test.Echo/Left", lambda payload, call: repr(call.time_remaining()).encode())
    client = channel(kind, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    assert await client.unary("/test.Echo/Left", b"", timeout_s) == b"None"
    await client.close()
    await made.stop(0)


# --- client_compressed_unary and client_compressed_streaming: looked at on the wire ---


class Tap:
    """Passes bytes on to a server, and counts those that its client sent."""

    def __init__(self, port):
        self.port, self.sent, self.over = port, 0, asyncio.Event()

    async def __call__(self, reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(self._pipe(reader, back, counts=True), self._pipe(there, writer))
        self.over.set()

    async def _pipe(self, source, sink, counts=False):
        while data := await source.read(65_536):
            self.sent += len(data) if counts else 0
            sink.write(data)
        sink.close()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].value}-serves-{pair[1].value}")
async def test_a_channel_that_compresses_sends_less(pair):
    made = server(pair[0])
    register(made)
    made.add_bytes_handler("/test.Echo/Size", lambda payload, call: b"%d" % len(payload))
    tap = Tap(made.add_port("127.0.0.1:0"))
    await made.start()
    between = await asyncio.start_server(tap, "127.0.0.1", 0)
    client = channel(
        pair[1], f"127.0.0.1:{between.sockets[0].getsockname()[1]}", ChannelOptions(compression=Compression.GZIP)
    )
    stub, large = Stub(client.stub_channel), b"again and again " * 20_000
    assert await client.unary("/test.Echo/Size", large, 10) == b"320000"
    assert await stub.inputs(iter([large, large]), timeout=10) == b"640000"
    assert await stub.unary(b"x", timeout=10) == b"x"
    assert tap.sent < 30_000
    if pair[1] is Transport.NATIVE:  # grpcio takes none for no choice
        plain = stub.inputs(iter([large]), timeout=10, compression=grpc.Compression.NoCompression)
        assert await plain == b"320000"
        assert tap.sent > 320_000
    await client.close()
    await made.stop(0)
    await asyncio.wait_for(tap.over.wait(), 5)
    between.close()
    await between.wait_closed()
