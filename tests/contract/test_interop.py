"""The public gRPC interoperability cases, each implementation serving each other's client
(grpc/doc/interop-test-descriptions.md).

Messages are plain bytes: the cases are about the transport. `unimplemented_*`, `timeout_on_sleeping_server` and
`special_status_message` of unary calls are in test_transport.py.
"""

import itertools
from contextlib import asynccontextmanager

import grpc
import pytest

from serving.transport import ChannelOptions, Code, RpcError, ServerOptions, Transport, channel, server

LARGE = 64 << 20
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
        if request == b"fail":
            context.set_code(grpc.StatusCode.UNKNOWN)
            context.set_details("test status message ☺")
        return request

    async def streaming_input_call(self, requests, context):
        return b"%d" % sum([len(request) async for request in requests])

    async def streaming_output_call(self, request, context):
        for size in request.split():
            yield b"x" * int(size)

    async def full_duplex_call(self, requests, context):
        async for request in requests:
            if request == b"fail":
                await context.abort(grpc.StatusCode.UNKNOWN, "test status message ☺")
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


async def test_status_code_and_message(stub):
    for reply in (stub.unary(b"fail", timeout=10), stub.duplex(iter([b"fail"]), timeout=10).read()):
        with pytest.raises(RpcError) as caught:
            await reply
        assert (caught.value.code, caught.value.details) == (Code.UNKNOWN, "test status message ☺")


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
