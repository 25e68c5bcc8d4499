"""What every implementation of the transport port does, seen from its own client."""

import asyncio
import importlib
import itertools
import pkgutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving import transport
from serving.transport import (
    Channel,
    ChannelOptions,
    Code,
    RpcError,
    Server,
    ServerOptions,
    Transport,
    call_of,
    channel,
    server,
)
from tessera.v1 import inference_pb2, inference_pb2_grpc, training_pb2, training_pb2_grpc

ECHO = "/test.Echo/Echo"


class Pair(NamedTuple):
    """Every implementation must do with every other's peer what it does with its own."""

    server: Transport
    client: Transport


PAIRS = [Pair(*kinds) for kinds in itertools.product(Transport, Transport)]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair.server.value}-serves-{pair.client.value}")
def kind(request) -> Pair:
    return request.param


@asynccontextmanager
async def running(kind, register, options=None, address="127.0.0.1:0") -> AsyncIterator[tuple[Server, str]]:
    made = server(kind.server, options)
    register(made)
    port = made.add_port(address)
    await made.start()
    try:
        yield made, f"127.0.0.1:{port}"
    finally:
        await made.stop(0)


@asynccontextmanager
async def connected(kind, register, options=None, client_options=None) -> AsyncIterator[tuple[Server, Channel]]:
    async with running(kind, register, options) as (made, address):
        client = channel(kind.client, address, client_options)
        try:
            yield made, client
        finally:
            await client.close()


def serves(handler, path=ECHO):
    return lambda made: made.add_bytes_handler(path, handler)


async def failure(awaitable) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


class Inference(inference_pb2_grpc.InferenceServicer):
    def __init__(self) -> None:
        self.seen = []

    async def Predict(self, request, context):
        self.seen.append(call_of(context).time_remaining())
        if request.service == "missing":
            raise RpcError(Code.NOT_FOUND, "no service missing", (("retry-after", "1"),))
        if request.service == "broken":
            raise ValueError("a secret")
        return inference_pb2.PredictReply(score=[0.5], model=request.service)


class PartyChannel(training_pb2_grpc.PartyChannelServicer):
    async def Deliver(self, request_iterator, context):
        async for envelope in request_iterator:
            if envelope.name == "bad":
                raise RpcError(Code.ABORTED, "bad envelope")
            yield training_pb2.Acknowledgement(next_position=envelope.position + 1)


def serves_own(made):
    inference_pb2_grpc.add_InferenceServicer_to_server(Inference(), made.registry)
    training_pb2_grpc.add_PartyChannelServicer_to_server(PartyChannel(), made.registry)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), made.registry)


async def test_a_bytes_handler_may_answer_at_once_or_later(kind):
    async def later(payload, call):
        await asyncio.sleep(0)
        return payload[::-1]

    def register(made):
        made.add_bytes_handler(ECHO, lambda payload, call: payload + b"!")
        made.add_bytes_handler("/test.Echo/Later", later)
        made.add_bytes_handler("/test.Other/Echo", lambda payload, call: b"other")

    async with connected(kind, register) as (_, client):
        assert await client.unary(ECHO, b"ab", 5) == b"ab!"
        assert await client.unary("/test.Echo/Later", b"ab", 5) == b"ba"
        assert await client.unary("/test.Other/Echo", b"", None) == b"other"


async def test_generated_servicers_work(kind):
    async with connected(kind, serves_own) as (_, client):
        predicted = await inference_pb2_grpc.InferenceStub(client.stub_channel).Predict(
            inference_pb2.PredictRequest(service="credit"), timeout=5
        )
        checked = await health_pb2_grpc.HealthStub(client.stub_channel).Check(
            health_pb2.HealthCheckRequest(), timeout=5
        )
    assert (predicted.model, list(predicted.score)) == ("credit", [0.5])
    assert checked.status == health_pb2.HealthCheckResponse.SERVING


class Threaded(training_pb2_grpc.PartyChannelServicer):
    """Plain functions, which run in threads."""

    def Meet(self, request, context):
        if request.job == "other":
            raise RpcError(Code.FAILED_PRECONDITION, "another job")
        return training_pb2.MeetReply(attempt=request.attempt)

    def Deliver(self, request_iterator, context):
        for envelope in request_iterator:
            if envelope.name == "bad":
                raise KeyError("a secret")
            yield training_pb2.Acknowledgement(next_position=envelope.position + 1)


async def test_servicers_of_plain_functions_work(kind):
    def register(made):
        training_pb2_grpc.add_PartyChannelServicer_to_server(Threaded(), made.registry)

    async with connected(kind, register) as (_, client):
        stub = training_pb2_grpc.PartyChannelStub(client.stub_channel)
        assert (await stub.Meet(training_pb2.MeetRequest(attempt=3), timeout=5)).attempt == 3
        refused = await failure(stub.Meet(training_pb2.MeetRequest(job="other"), timeout=5))
        call = stub.Deliver(iter([training_pb2.Envelope(position=4), training_pb2.Envelope(name="bad")]), timeout=5)
        assert (await call.read()).next_position == 5
        broken = await failure(call.read())
    assert (refused.code, refused.details) == (Code.FAILED_PRECONDITION, "another job")
    assert (broken.code, broken.details) == (Code.INTERNAL, "internal error")


async def test_a_servicer_may_abort_its_context(kind):
    async with connected(kind, serves_own) as (_, client):
        stub = health_pb2_grpc.HealthStub(client.stub_channel)
        error = await failure(stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5))
    assert error.code is Code.NOT_FOUND


async def test_streams_run_both_ways_at_once(kind):
    async with connected(kind, serves_own) as (_, client):
        call = training_pb2_grpc.PartyChannelStub(client.stub_channel).Deliver(timeout=5)
        for position in range(3):
            await call.write(training_pb2.Envelope(position=position))
            assert (await call.read()).next_position == position + 1
        await call.done_writing()
        assert await call.read() is None


async def test_an_error_in_a_stream_keeps_its_code(kind):
    async with connected(kind, serves_own) as (_, client):
        stub = training_pb2_grpc.PartyChannelStub(client.stub_channel)

        async def envelopes():
            yield training_pb2.Envelope(position=0)
            yield training_pb2.Envelope(name="bad")

        replies = []
        with pytest.raises(RpcError) as caught:
            async for reply in stub.Deliver(envelopes(), timeout=5):
                replies.append(reply.next_position)  # noqa: PERF401 - what came before the error counts
    assert replies == [1]
    assert (caught.value.code, caught.value.details) == (Code.ABORTED, "bad envelope")


async def test_a_servicer_error_keeps_code_text_and_trailing_metadata(kind):
    async with connected(kind, serves_own) as (_, client):
        stub = inference_pb2_grpc.InferenceStub(client.stub_channel)
        error = await failure(stub.Predict(inference_pb2.PredictRequest(service="missing"), timeout=5))
    assert (error.code, error.details) == (Code.NOT_FOUND, "no service missing")
    assert ("retry-after", "1") in error.trailing_metadata


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_every_code_crosses_the_wire(kind, code):
    def handler(payload, call):
        raise RpcError(code, f"why: {code.name} ✓", (("k-bin", b"\x00\xff"),))

    async with connected(kind, serves(handler)) as (_, client):
        error = await failure(client.unary(ECHO, b"", 5))
    assert (error.code, error.details) == (code, f"why: {code.name} ✓")
    assert ("k-bin", b"\x00\xff") in error.trailing_metadata


async def test_an_unexpected_exception_is_internal_and_only_logged(kind, caplog):
    def handler(payload, call):
        raise ValueError("a secret")

    def register(made):
        serves_own(made)
        made.add_bytes_handler(ECHO, handler)

    async with connected(kind, register) as (_, client):
        from_bytes = await failure(client.unary(ECHO, b"", 5))
        stub = inference_pb2_grpc.InferenceStub(client.stub_channel)
        from_servicer = await failure(stub.Predict(inference_pb2.PredictRequest(service="broken"), timeout=5))
    for error in (from_bytes, from_servicer):
        assert (error.code, error.details) == (Code.INTERNAL, "internal error")
    assert caplog.text.count("ValueError: a secret") == 2


async def test_unknown_methods_and_methods_left_out_are_unimplemented(kind):
    async with connected(kind, serves_own) as (_, client):
        unknown = await failure(client.unary("/test.Nobody/Nothing", b"", 5))
        stub = inference_pb2_grpc.InferenceStub(client.stub_channel)
        left_out = await failure(stub.BatchPredict(inference_pb2.BatchPredictRequest(), timeout=5))
    assert unknown.code is Code.UNIMPLEMENTED
    assert left_out.code is Code.UNIMPLEMENTED


async def test_oversized_messages_are_refused_on_either_side(kind):
    limits = {"options": ServerOptions(max_receive_bytes=1000), "client_options": ChannelOptions(max_receive_bytes=500)}
    async with connected(kind, serves(lambda payload, call: payload), **limits) as (_, client):
        assert await client.unary(ECHO, b"x" * 400, 5) == b"x" * 400
        request = await failure(client.unary(ECHO, b"x" * 2000, 5))
        reply = await failure(client.unary(ECHO, b"x" * 900, 5))
    assert request.code is Code.RESOURCE_EXHAUSTED
    assert reply.code is Code.RESOURCE_EXHAUSTED


async def test_too_many_calls_at_once_are_refused(kind):
    release = asyncio.Event()
    entered = asyncio.Event()

    async def handler(payload, call):
        entered.set()
        await release.wait()
        return payload

    async with connected(kind, serves(handler), ServerOptions(max_concurrent_calls=1)) as (_, client):
        first = asyncio.ensure_future(client.unary(ECHO, b"1", 5))
        await entered.wait()
        refused = await failure(client.unary(ECHO, b"2", 5))
        release.set()
        assert await first == b"1"
    assert refused.code is Code.RESOURCE_EXHAUSTED


async def test_the_deadline_reaches_handler_and_client(kind):
    seen = []
    cancelled = asyncio.Event()

    async def handler(payload, call):
        seen.append(call.time_remaining())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with connected(kind, serves(handler)) as (_, client):
        error = await failure(client.unary(ECHO, b"", 0.5))
        await asyncio.wait_for(cancelled.wait(), 5)
    assert error.code is Code.DEADLINE_EXCEEDED
    assert 0 < seen[0] <= 0.51


async def test_without_a_deadline_none_remains(kind):
    async def handler(payload, call):
        return str(call.time_remaining()).encode()

    async with connected(kind, serves(handler)) as (_, client):
        assert await client.unary(ECHO, b"", None) == b"None"


async def test_cancelling_the_client_cancels_the_handler(kind):
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(payload, call):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with connected(kind, serves(handler)) as (_, client):
        call = asyncio.ensure_future(client.unary(ECHO, b"", None))
        await entered.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_metadata_goes_both_ways(kind):
    def handler(payload, call):
        call.set_trailing_metadata((("x-request-id", dict(call.metadata())["x-request-id"]),))
        assert (call.value_of("x-request-id"), call.value_of("x-another")) == ("r1", "")
        assert call.peer_identities() == ()
        return f"{dict(call.metadata())['trace-bin']!r} {call.peer().count('127.0.0.1')}".encode()

    async with connected(kind, serves(handler)) as (_, client):
        sent = (("x-request-id", "r1"), ("trace-bin", b"\x00\x01"))
        assert await client.unary(ECHO, b"", 5, sent) == b"b'\\x00\\x01' 1"


async def test_trailing_metadata_set_before_an_answer_arrives(kind):
    class Tagged(inference_pb2_grpc.InferenceServicer):
        async def Predict(self, request, context):
            call_of(context).set_trailing_metadata((("x-request-id", "r7"),))
            return inference_pb2.PredictReply()

    async with connected(
        kind, lambda made: inference_pb2_grpc.add_InferenceServicer_to_server(Tagged(), made.registry)
    ) as (_, client):
        call = inference_pb2_grpc.InferenceStub(client.stub_channel).Predict(inference_pb2.PredictRequest(), timeout=5)
        await call
        assert dict(await call.trailing_metadata())["x-request-id"] == "r7"


async def test_calls_share_a_channel_concurrently(kind):
    async def handler(payload, call):
        await asyncio.sleep(0)
        return payload * 2

    async with connected(kind, serves(handler)) as (_, client):
        replies = await asyncio.gather(*(client.unary(ECHO, b"%d" % number, 10) for number in range(300)))
    assert replies == [b"%d" % number * 2 for number in range(300)]


async def test_a_graceful_stop_lets_running_calls_finish_and_refuses_new_ones(kind):
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(payload, call):
        if payload == b"slow":
            entered.set()
            await release.wait()
        return b"done"

    async with connected(kind, serves(handler)) as (made, client):
        first = asyncio.ensure_future(client.unary(ECHO, b"slow", 10))
        await entered.wait()
        stopping = asyncio.ensure_future(made.stop(10))
        refused = await until_refused(client)
        assert not stopping.done()
        release.set()
        assert await first == b"done"
        await stopping
    # A request that crosses grpc.aio's GOAWAY on the wire is answered CANCELLED; its own client never sends one.
    crossing = {Code.CANCELLED} if kind == Pair(Transport.GRPCIO, Transport.NATIVE) else set()
    assert refused.code in {Code.UNAVAILABLE} | crossing


async def until_refused(client: Channel) -> RpcError:
    """Calls that cross the announcement of the end may still be answered, and rightly."""
    async with asyncio.timeout(5):
        while True:
            try:
                assert await client.unary(ECHO, b"", 5) == b"done"
            except RpcError as error:
                return error


async def test_a_call_that_outlives_the_grace_is_cancelled(kind):
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(payload, call):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with connected(kind, serves(handler)) as (made, client):
        call = asyncio.ensure_future(client.unary(ECHO, b"", None))
        await entered.wait()
        await made.stop(0.05)
        await asyncio.wait_for(cancelled.wait(), 5)
        assert (await failure(call)).code is Code.UNAVAILABLE


async def test_a_port_in_use_is_an_error_that_names_the_address(kind):
    async with running(kind, serves(lambda payload, call: payload)) as (_, address):
        second = server(kind.server)
        with pytest.raises(OSError, match=f"cannot bind {address}: Address already in use"):
            second.add_port(address)
        await second.stop(0)


async def test_an_address_of_another_machine_is_an_error(kind):
    made = server(kind.server)
    with pytest.raises(OSError, match=r"cannot bind 192\.0\.2\.1:0: Cannot assign"):
        made.add_port("192.0.2.1:0")
    with pytest.raises(OSError, match=r"cannot bind nowhere\.invalid:0: \w+"):
        made.add_port("nowhere.invalid:0")
    await made.stop(0)


async def test_nobody_listening_is_unavailable(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    client = channel(kind.client, address)
    assert (await failure(client.unary(ECHO, b"", 5))).code is Code.UNAVAILABLE
    await client.close()


async def test_a_channel_reconnects_after_the_server_came_back(kind):
    register = serves(lambda payload, call: payload)
    async with running(kind, register) as (made, address):
        client = channel(kind.client, address, ChannelOptions(backoff_max_s=0.1))
        assert await client.unary(ECHO, b"1", 5) == b"1"
        await made.stop(0)
        assert (await failure(client.unary(ECHO, b"2", 5))).code is Code.UNAVAILABLE
    async with running(kind, register, address=address):
        assert await until_answered(client, b"3") == b"3"
    await client.close()


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "ipv4:127.0.0.1"), ("[::1]", "ipv6:%5B::1%5D")])
async def test_handlers_see_the_callers_address(kind, host, shown):
    async with running(kind, serves(lambda payload, call: call.peer().encode()), address=f"{host}:0") as (_, address):
        client = channel(kind.client, address.replace("127.0.0.1", host))
        seen, _, port = (await client.unary(ECHO, b"", 5)).decode().rpartition(":")
        assert seen == shown
        assert int(port)
        await client.close()


@pytest.mark.soak
async def test_a_server_bears_clients_that_ping_often(kind):
    async def handler(payload, call):
        await asyncio.sleep(5)  # longer than it takes a server that counts pings to lose patience
        return payload

    async with connected(kind, serves(handler), client_options=ChannelOptions(keepalive_s=0.25)) as (_, client):
        assert await client.unary(ECHO, b"x", 30) == b"x"


async def until_answered(client: Channel, payload: bytes) -> bytes:
    async with asyncio.timeout(10):
        while True:
            try:
                return await client.unary(ECHO, payload, 5)
            except RpcError:
                await asyncio.sleep(0.02)


def test_it_runs_on_uvloop(kind):
    async def story():
        async with connected(kind, serves_own) as (_, client):
            stub = inference_pb2_grpc.InferenceStub(client.stub_channel)
            return await asyncio.gather(
                stub.Predict(inference_pb2.PredictRequest(service="credit"), timeout=5),
                failure(stub.Predict(inference_pb2.PredictRequest(service="missing"), timeout=5)),
            )

    answered, refused = uvloop.run(story())
    assert (answered.model, refused.code) == ("credit", Code.NOT_FOUND)


async def test_the_package_still_offers_its_functions_once_all_its_modules_are_loaded():
    for module in pkgutil.iter_modules(transport.__path__, "serving.transport."):
        importlib.import_module(module.name)
    assert all(getattr(transport, name) is thing for name, thing in (("server", server), ("channel", channel)))
