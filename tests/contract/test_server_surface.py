"""What code written for `grpc.aio.server()` finds on every server: interceptors, reflection, compression, waiting."""

import asyncio
import gzip

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from serving.certificates import make_authority, make_certificate
from serving.transport import (
    ChannelCredentials,
    ChannelOptions,
    Code,
    Compression,
    RpcError,
    ServerCredentials,
    ServerOptions,
    Transport,
    channel,
    frames,
    server,
)
from serving.transport.arguments import server_options
from serving.transport.call import frame_message, request_prefix
from serving.transport.frames import FrameReader
from serving.transport.hpack import encode
from tessera.v1 import inference_pb2, inference_pb2_grpc
from tests.contract.services import MAKERS, address_of, registers, stub_of


@pytest.fixture(params=list(Transport), ids=lambda kind: kind.value)
def kind(request) -> Transport:
    return request.param


async def failure(awaitable) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


async def echo(request, context):
    return request


async def echoes(requests, context):
    async for request in requests:
        yield request


async def joined(requests, context):
    return b"".join([request async for request in requests])


async def letters(request, context):
    for letter in request:
        yield bytes((letter,))


ALL = {"unary_unary": echo, "unary_stream": letters, "stream_unary": joined, "stream_stream": echoes}


class Tracer(grpc.aio.ServerInterceptor):
    """Notes what it sees."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    async def intercept_service(self, continuation, handler_call_details):
        metadata = {field.key: field.value for field in handler_call_details.invocation_metadata}
        self.seen.append((self.name, handler_call_details.method, metadata.get("k")))
        return await continuation(handler_call_details)


async def test_interceptors_see_every_call_the_first_one_first(kind):
    seen = []
    async with stub_of(kind, ALL, interceptors=(Tracer("outer", seen), Tracer("inner", seen))) as stub:
        metadata = (("k", "v"),)
        assert await stub("unary_unary")(b"ab", timeout=5, metadata=metadata) == b"ab"
        assert await stub("stream_unary")(iter((b"a", b"b")), timeout=5, metadata=metadata) == b"ab"
        split = stub("unary_stream")(b"ab", timeout=5, metadata=metadata)
        assert [reply async for reply in split] == [b"a", b"b"]
        echoed = stub("stream_stream")(iter((b"a", b"b")), timeout=5, metadata=metadata)
        assert [reply async for reply in echoed] == [b"a", b"b"]
    names = ("unary_unary", "stream_unary", "unary_stream", "stream_stream")
    assert seen == [(who, f"/test.Service/{name}", "v") for name in names for who in ("outer", "inner")]


class Shouting(grpc.aio.ServerInterceptor):
    """Replaces the behaviour."""

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)

        async def behave(request, context):
            context.set_trailing_metadata((("shouted", "yes"),))
            return (await handler.unary_unary(request, context)).upper()

        return grpc.unary_unary_rpc_method_handler(behave)


async def test_an_interceptor_may_replace_the_behaviour(kind):
    async with stub_of(kind, ALL, interceptors=(Shouting(),)) as stub:
        call = stub("unary_unary")(b"ab", timeout=5)
        assert await call == b"AB"
        assert ("shouted", "yes") in await call.trailing_metadata()


async def test_interceptors_see_bytes_handlers_and_typed_servicers(kind):
    class Inference(inference_pb2_grpc.InferenceServicer):
        async def Predict(self, request, context):
            return inference_pb2.PredictReply(model=request.service)

    seen = []
    made = server(kind, None, (Tracer("tracer", seen),))
    made.add_bytes_handler("/test.Echo/Echo", lambda payload, call: payload + dict(call.metadata())["k"].encode())
    inference_pb2_grpc.add_InferenceServicer_to_server(Inference(), made.registry)
    client = channel(Transport.NATIVE, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    assert await client.unary("/test.Echo/Echo", b"ab", 5, (("k", "v"),)) == b"abv"
    reply = await inference_pb2_grpc.InferenceStub(client.stub_channel).Predict(
        inference_pb2.PredictRequest(service="credit"), timeout=5
    )
    assert reply.model == "credit"
    assert [method for _, method, _ in seen] == ["/test.Echo/Echo", "/tessera.v1.Inference/Predict"]
    await client.close()
    await made.stop(0)


class Refusing(grpc.aio.ServerInterceptor):
    """Ends calls before their method is known."""

    def __init__(self, refusal):
        self.refusal = refusal

    async def intercept_service(self, continuation, handler_call_details):
        if isinstance(self.refusal, Exception):
            raise self.refusal
        return self.refusal


@pytest.mark.parametrize("name", list(ALL))
async def test_an_interceptor_may_refuse_a_call(kind, name):
    refusal = RpcError(Code.UNAUTHENTICATED, "who are you", (("www-authenticate", "Bearer"),))
    async with stub_of(kind, ALL, interceptors=(Refusing(refusal),)) as stub:
        streams = name.startswith("stream")
        call = stub(name)(iter((b"a",)) if streams else b"a", timeout=5)
        error = await failure(call.read() if name.endswith("stream") else call)
    assert (error.code, error.details) == (Code.UNAUTHENTICATED, "who are you")
    assert ("www-authenticate", "Bearer") in error.trailing_metadata


async def test_an_interceptor_that_fails_is_internal_without_text(kind, caplog):
    async with stub_of(kind, ALL, interceptors=(Refusing(KeyError("a secret")),)) as stub:
        error = await failure(stub("unary_unary")(b"", timeout=5))
    assert (error.code, error.details) == (Code.INTERNAL, "internal error")
    assert "a secret" in caplog.text


async def test_an_interceptor_without_a_handler_leaves_the_method_unimplemented(kind):
    async with stub_of(kind, ALL, interceptors=(Refusing(None),)) as stub:
        assert (await failure(stub("unary_unary")(b"", timeout=5))).code is Code.UNIMPLEMENTED


async def test_behind_interceptors_errors_end_as_without(kind):
    async def fails(request, context):
        raise RpcError(Code.NOT_FOUND, "nobody")

    async with stub_of(kind, {"unary_unary": fails}, interceptors=(Tracer("", []),)) as stub:
        error = await failure(stub("unary_unary")(b"", timeout=5))
        assert (error.code, error.details) == (Code.NOT_FOUND, "nobody")


@pytest.mark.parametrize("interceptors", [(), (Tracer("", []),)], ids=["bare", "intercepted"])
@pytest.mark.parametrize("requests", [(), (b"a", b"b")], ids=["none", "two"])
async def test_a_unary_call_needs_exactly_one_request(interceptors, requests):
    """grpcio waits for the first one until the deadline, and ignores a second one."""
    async with address_of(Transport.NATIVE, {"unary_unary": echo}, interceptors=interceptors) as address:
        client = channel(Transport.NATIVE, address)
        call = client.stub_channel.stream_unary("/test.Service/unary_unary")(iter(requests), timeout=5)
        assert (await failure(call)).code is Code.INTERNAL
        await client.close()


async def test_reflection_names_the_services(kind):
    class Inference(inference_pb2_grpc.InferenceServicer):
        pass

    made = server(kind)
    inference_pb2_grpc.add_InferenceServicer_to_server(Inference(), made.registry)
    reflection.enable_server_reflection(("tessera.v1.Inference", reflection.SERVICE_NAME), made.registry)
    client = channel(Transport.NATIVE, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    asked = iter(
        (
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="tessera.v1.Inference"),
        )
    )
    call = reflection_pb2_grpc.ServerReflectionStub(client.stub_channel).ServerReflectionInfo(asked, timeout=5)
    listed, described = [reply async for reply in call]
    assert {service.name for service in listed.list_services_response.service} == {
        "tessera.v1.Inference",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert described.file_descriptor_response.file_descriptor_proto
    await client.close()
    await made.stop(0)


async def test_the_registry_is_a_server_of_grpc_aio(kind):
    made = server(kind)
    assert isinstance(made.registry, grpc.aio.Server)
    registers(made, ALL)
    port = made.registry.add_insecure_port("127.0.0.1:0")
    await made.registry.start()
    client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
    assert await client.unary("/test.Service/unary_unary", b"x", 5) == b"x"
    await client.close()
    waiting = asyncio.ensure_future(made.registry.wait_for_termination())
    assert await made.wait_for_termination(0.01) is False
    await made.registry.stop(None)
    assert await asyncio.wait_for(waiting, 5)


async def test_a_server_takes_what_grpcs_takes(kind):
    """Options, interceptors, maximum_concurrent_rpcs and compression, by grpc's names."""
    seen, go_on = [], asyncio.Event()

    async def wait(request, context):
        await go_on.wait()
        return request

    made = server(
        kind,
        options=[("grpc.max_receive_message_length", 1000), ("grpc.max_send_message_length", -1), ("grpc.other", 1)],
        interceptors=(Tracer("tracer", seen),),
        maximum_concurrent_rpcs=1,
        compression=grpc.Compression.Gzip,
    )
    registers(made, {"unary_unary": wait})
    client = channel(Transport.NATIVE, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    method = client.stub_channel.unary_unary("/test.Service/unary_unary")
    assert (await failure(method(b"x" * 1001, timeout=5))).code is Code.RESOURCE_EXHAUSTED
    running = asyncio.ensure_future(client.unary("/test.Service/unary_unary", b"x" * 900, 5))
    async with asyncio.timeout(5):
        while len(seen) < 1:
            await asyncio.sleep(0.001)
        assert (await failure(method(b"x", timeout=5))).code is Code.RESOURCE_EXHAUSTED
    go_on.set()
    assert await running == b"x" * 900
    await client.close()
    await made.stop(0)


def test_keywords_take_the_place_of_options():
    options = ServerOptions(max_concurrent_calls=5, compression=Compression.GZIP, max_connections=7)
    chosen = server_options(options, 3, grpc.Compression.NoCompression)
    assert (chosen.max_concurrent_calls, chosen.compression, chosen.max_connections) == (3, Compression.IDENTITY, 7)
    assert server_options(options, None, None) == options
    assert server_options((("grpc.keepalive_time_ms", 1500),), None, None) == ServerOptions(keepalive_s=1.5)


async def test_the_registry_serves_tls_with_credentials_of_ours(kind, tmp_path):
    await asyncio.to_thread(make_authority, tmp_path, "test")
    await asyncio.to_thread(make_certificate, tmp_path, "shop", ["127.0.0.1"])
    credentials = await asyncio.to_thread(ServerCredentials, tmp_path / "shop.pem", tmp_path / "shop.key")
    made = server(kind)
    registers(made, ALL)
    port = made.registry.add_secure_port("127.0.0.1:0", credentials)
    theirs = grpc.ssl_server_credentials([(credentials.loaded.key, credentials.loaded.certificate)])
    with pytest.raises(ValueError, match=r"credentials of serving\.transport"):
        made.registry.add_secure_port("127.0.0.1:0", theirs)
    await made.registry.start()
    trusted = await asyncio.to_thread(ChannelCredentials, tmp_path / "ca.pem")
    client = channel(Transport.NATIVE, f"127.0.0.1:{port}", ChannelOptions(credentials=trusted))
    assert await client.unary("/test.Service/unary_unary", b"x", 5) == b"x"
    await client.close()
    await made.registry.stop(None)


# --- compressed replies, looked at on the wire ---

BIG = b"again and again " * 200
ACCEPTS = encode(((b"grpc-accept-encoding", b"identity, deflate,gzip"),))


async def replies(kind, behaviour, options=None, accepts=ACCEPTS, count=1):
    """The prefixed messages of a server-streaming reply as they crossed the wire, and the flag of each."""
    async with address_of(kind, {"unary_stream": behaviour}, options) as address:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        plain = request_prefix("/test.Service/unary_stream", "test").replace(
            encode(((b"grpc-accept-encoding", b"identity,gzip"),)), b""
        )
        writer.write(frames.PREFACE + frames.settings({}) + frames.headers(1, plain + accepts, False))
        writer.write(frames.frame(frames.DATA, frames.END_STREAM, 1, frame_message(b"")))
        cutter, body = FrameReader(), b""
        found: list[tuple[int, bytes]] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                for frame_kind, _, _, payload in cutter.feed(await reader.read(65536)):
                    body += payload if frame_kind == frames.DATA else b""
                while len(body) >= 5 and len(body) >= (size := 5 + int.from_bytes(body[1:5], "big")):
                    found.append((body[0], body[5:size]))
                    body = body[size:]
        writer.close()
    return found


async def big(request, context):
    yield BIG


async def test_a_server_that_compresses_does_so_for_callers_that_accept_it(kind):
    ((flag, message),) = await replies(kind, big, ServerOptions(compression=Compression.GZIP))
    assert (flag, gzip.decompress(message)) == (1, BIG)
    assert len(message) < len(BIG)


async def test_no_reply_is_compressed_for_a_caller_that_does_not_accept_it():
    """grpcio compresses all the same."""
    assert await replies(Transport.NATIVE, big, ServerOptions(compression=Compression.GZIP), accepts=b"") == [(0, BIG)]


async def test_a_servicer_may_choose_compression(kind):
    async def behave(request, context):
        context.set_compression(grpc.Compression.Gzip)
        yield BIG
        context.disable_next_message_compression()
        yield BIG
        yield BIG
        with pytest.raises(RuntimeError):
            context.set_compression(grpc.Compression.NoCompression)

    found = await replies(kind, behave, count=3)
    assert [flag for flag, _ in found] == [1, 0, 1]
    assert found[1][1] == BIG


async def test_a_servicer_may_choose_no_compression(kind):
    async def behave(request, context):
        context.set_compression(grpc.Compression.NoCompression)
        yield BIG

    assert await replies(kind, behave, ServerOptions(compression=Compression.GZIP)) == [(0, BIG)]


async def test_compressed_replies_of_every_kind_are_read(kind):
    made = server(kind, ServerOptions(compression=Compression.GZIP))
    made.add_bytes_handler("/test.Echo/Echo", lambda payload, call: payload)
    registers(made, ALL)
    address = f"127.0.0.1:{made.add_port('127.0.0.1:0')}"
    await made.start()
    for client_kind in Transport:
        client = channel(client_kind, address)
        assert await client.unary("/test.Echo/Echo", BIG, 5) == BIG
        assert await client.unary("/test.Service/unary_unary", BIG * 100, 5) == BIG * 100
        assert await client.unary("/test.Service/unary_unary", b"", 5) == b""
        await client.close()
    await made.stop(0)


def ask(request, context):
    return inference_pb2.PredictReply(model=request.service)


def ask_many(request, context):
    yield ask(request, context)


async def ask_awaited(request, context):
    return ask(request, context)


async def ask_many_awaited(request, context):
    yield ask(request, context)


@pytest.mark.parametrize("behaviour", [ask, ask_many, ask_awaited, ask_many_awaited])
@pytest.mark.parametrize("intercepted", [False, True])
async def test_a_request_that_cannot_be_read_is_the_callers_fault(kind, behaviour, intercepted, caplog):
    make = MAKERS["unary_stream" if "many" in behaviour.__name__ else "unary_unary"]
    handler = make(behaviour, inference_pb2.PredictRequest.FromString, inference_pb2.PredictReply.SerializeToString)
    made = server(kind, None, (Tracer("tracer", []),) if intercepted else ())
    made.registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Typed", {"Ask": handler}),))
    client = channel(Transport.NATIVE, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    try:
        error = await failure(client.unary("/test.Typed/Ask", b"\xff\xff", 5))
        assert (error.code, "no message of the method's type" in error.details) == (Code.INVALID_ARGUMENT, True)
        good = inference_pb2.PredictRequest(service="s").SerializeToString()
        assert inference_pb2.PredictReply.FromString(await client.unary("/test.Typed/Ask", good, 5)).model == "s"
    finally:
        await client.close()
        await made.stop(0)
    assert not caplog.records


def answer_each(requests, context):
    for request in requests:
        yield ask(request, context)


def answer_last(requests, context):
    return [ask(request, context) for request in requests][-1]


async def answer_each_awaited(requests, context):
    async for request in requests:
        yield ask(request, context)


async def answer_last_awaited(requests, context):
    return [ask(request, context) async for request in requests][-1]


async def read_one(requests, context):
    return ask(await context.read(), context)


async def read_and_write(requests, context):
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(ask(request, context))


@pytest.mark.parametrize("intercepted", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "kept"),
    [
        (answer_each, "stream_stream"),
        (answer_last, "stream_unary"),
        (answer_each_awaited, "stream_stream"),
        (answer_last_awaited, "stream_unary"),
        (read_one, "stream_unary"),
        (read_and_write, "stream_stream"),
    ],
)
async def test_so_is_one_in_a_stream(kind, behaviour, kept, intercepted, caplog):
    make = MAKERS[kept]
    handler = make(behaviour, inference_pb2.PredictRequest.FromString, inference_pb2.PredictReply.SerializeToString)
    made = server(kind, None, (Tracer("tracer", []),) if intercepted else ())
    made.registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Typed", {"Ask": handler}),))
    client = channel(Transport.NATIVE, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    good = inference_pb2.PredictRequest(service="s").SerializeToString()
    ask_all = client.stub_channel.stream_stream("/test.Typed/Ask")
    try:
        replies = [inference_pb2.PredictReply.FromString(one) async for one in ask_all(iter((good,)), timeout=5)]
        assert [reply.model for reply in replies] == ["s"]
        error = await failure(aiter(ask_all(iter((b"\xff\xff",)), timeout=5)).__anext__())
        assert (error.code, "no message of the method's type" in error.details) == (Code.INVALID_ARGUMENT, True)
    finally:
        await client.close()
        await made.stop(0)
    # asyncio sometimes tells of grpc's own abort from a thread.
    assert not [record for record in caplog.records if record.name != "asyncio"]
