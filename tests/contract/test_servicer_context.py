"""What servicers may do with their context: the surface of grpc.aio's, on every server."""

import asyncio
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest

from serving.transport import Code, RpcError, Transport
from tests.contract.services import stub_of


@pytest.fixture(params=list(Transport), ids=lambda kind: kind.value)
def kind(request) -> Transport:
    return request.param


async def failure(awaitable) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


async def of_unary(kind, behaviour, **call):
    """The error of one call."""
    async with stub_of(kind, {"unary_unary": behaviour}) as stub:
        return await failure(stub("unary_unary")(b"", timeout=5, **call))


async def test_abort_ends_the_call_with_status_details_and_metadata(kind):
    after = []

    async def behave(request, context):
        try:
            await context.abort(grpc.StatusCode.ABORTED, "why", (("k", "v"),))
        finally:
            after.append((context.done(), context.code(), context.details()))

    error = await of_unary(kind, behave)
    assert (error.code, error.details) == (Code.ABORTED, "why")
    assert ("k", "v") in error.trailing_metadata
    assert after == [(True, grpc.StatusCode.ABORTED, "why")]


async def test_abort_takes_what_was_set_before(kind):
    async def behave(request, context):
        context.set_trailing_metadata((("k", "v"),))
        context.set_details("set before")
        await context.abort(grpc.StatusCode.ABORTED)

    error = await of_unary(kind, behave)
    assert (error.code, error.details) == (Code.ABORTED, "set before")
    assert ("k", "v") in error.trailing_metadata


async def test_an_abort_that_the_servicer_swallows_ended_the_call_all_the_same(kind):
    async def behave(request, context):
        try:
            await context.abort(grpc.StatusCode.ABORTED, "why")
        except grpc.aio.AbortError:
            return b"never sent"

    assert (await of_unary(kind, behave)).code is Code.ABORTED


async def test_abort_with_status(kind):
    async def behave(request, context):
        await context.abort_with_status(
            SimpleNamespace(code=grpc.StatusCode.DATA_LOSS, details="lost", trailing_metadata=(("k", "v"),))
        )

    error = await of_unary(kind, behave)
    assert (error.code, error.details) == (Code.DATA_LOSS, "lost")
    assert ("k", "v") in error.trailing_metadata


async def test_an_error_raised_keeps_the_metadata_set_before(kind):
    async def behave(request, context):
        context.set_trailing_metadata((("x-request-id", "r1"),))
        raise RpcError(Code.NOT_FOUND, "nobody", (("retry-after", "1"),))

    error = await of_unary(kind, behave)
    assert {("x-request-id", "r1"), ("retry-after", "1")} <= set(error.trailing_metadata)


async def test_code_and_details_that_were_set_replace_the_reply(kind):
    async def behave(request, context):
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("beyond")
        assert (context.code(), context.details()) == (grpc.StatusCode.OUT_OF_RANGE, "beyond")
        return b"never sent"

    error = await of_unary(kind, behave)
    assert (error.code, error.details) == (Code.OUT_OF_RANGE, "beyond")


async def test_a_stream_may_end_with_a_code_that_was_set(kind):
    async def behave(request, context):
        yield b"first"
        context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
        context.set_details("no more")

    async with stub_of(kind, {"unary_stream": behave}) as stub:
        call = stub("unary_stream")(b"", timeout=5)
        assert await call.read() == b"first"
        error = await failure(call.read())
    assert (error.code, error.details) == (Code.RESOURCE_EXHAUSTED, "no more")


async def test_metadata_goes_in_and_out_at_both_ends(kind):
    async def behave(request, context):
        sent = {field.key: field.value for field in context.invocation_metadata()}
        await context.send_initial_metadata((("begin", sent["name"]), ("begin-bin", b"\x00\xff")))
        context.set_trailing_metadata((("end", "yes"), ("end-bin", sent["raw-bin"])))
        assert ("end", "yes") in context.trailing_metadata()
        return b"reply"

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        call = stub("unary_unary")(b"", timeout=5, metadata=(("name", "value"), ("raw-bin", b"\x01")))
        assert await call == b"reply"
        assert {("begin", "value"), ("begin-bin", b"\x00\xff")} <= set(await call.initial_metadata())
        assert {("end", "yes"), ("end-bin", b"\x01")} <= set(await call.trailing_metadata())


async def test_initial_metadata_is_sent_before_the_reply_and_once(kind):
    go_on = asyncio.Event()
    twice = []

    async def behave(request, context):
        await context.send_initial_metadata((("begin", "yes"),))
        await go_on.wait()
        try:
            await context.send_initial_metadata((("begin", "again"),))
        except grpc.aio.UsageError as error:
            twice.append(error)
        return b""

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        call = stub("unary_unary")(b"", timeout=5)
        assert ("begin", "yes") in await call.initial_metadata()
        assert not call.done()
        go_on.set()
        await call
    assert len(twice) == 1


async def test_peer_without_tls(kind):
    seen = []

    async def behave(request, context):
        seen.append((context.peer_identities(), context.peer_identity_key()))
        return context.peer().encode()

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        peer = await stub("unary_unary")(b"", timeout=5)
    assert peer.startswith(b"ipv4:127.0.0.1:")
    assert not seen[0][0]
    assert seen[0][1] is None


async def test_time_remaining(kind):
    seen = []

    async def behave(request, context):
        seen.append(context.time_remaining())
        return b""

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        await stub("unary_unary")(b"", timeout=5)
        await stub("unary_unary")(b"")
    assert 4 < seen[0] <= 5.1
    assert seen[1] is None


async def test_a_call_is_done_once_it_is_answered_and_tells_so(kind):
    told = asyncio.get_running_loop().create_future()
    during = []

    async def behave(request, context):
        context.add_done_callback(lambda context: told.set_result((context, context.done())))
        during.append((context.done(), context.cancelled()))
        return b""

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        await stub("unary_unary")(b"", timeout=5)
        _, done = await asyncio.wait_for(told, 5)
    assert during == [(False, False)]
    assert done


async def test_a_cancelled_call_tells_its_callbacks(kind):
    told, entered = asyncio.Event(), asyncio.Event()

    async def behave(request, context):
        context.add_done_callback(lambda _: told.set())
        entered.set()
        await asyncio.Event().wait()

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        call = stub("unary_unary")(b"", timeout=5)
        await entered.wait()
        call.cancel()
        await asyncio.wait_for(told.wait(), 5)


async def test_a_code_of_cancelled_is_seen(kind):
    seen = []

    async def behave(request, context):
        context.set_code(grpc.StatusCode.CANCELLED)
        seen.append(context.cancelled())
        return b""

    assert (await of_unary(kind, behave)).code in {Code.CANCELLED, Code.UNAVAILABLE}
    assert seen == [True]


async def test_read_and_write_serve_a_stream_by_hand(kind):
    async def behave(requests, context):
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request.upper())

    async with stub_of(kind, {"stream_stream": behave}) as stub:
        call = stub("stream_stream")(iter((b"a", b"b")), timeout=5)
        assert [await call.read(), await call.read(), await call.read()] == [b"A", b"B", None]


async def test_every_cardinality_with_coroutines(kind):
    async def unary_unary(request, context):
        return request

    async def unary_stream(request, context):
        for letter in request:
            yield bytes((letter,))

    async def stream_unary(requests, context):
        return b"".join([request async for request in requests])

    async def stream_stream(requests, context):
        async for request in requests:
            yield request

    behaviours = locals() | {"kind": None}
    await every_cardinality(kind, {name: made for name, made in behaviours.items() if callable(made)})


async def test_every_cardinality_with_plain_functions(kind):
    def unary_unary(request, context):
        return request

    def unary_stream(request, context):
        for letter in request:
            yield bytes((letter,))

    def stream_unary(requests, context):
        return b"".join(requests)

    def stream_stream(requests, context):
        yield from requests

    behaviours = locals() | {"kind": None}
    await every_cardinality(kind, {name: made for name, made in behaviours.items() if callable(made)})


async def every_cardinality(kind, behaviours):
    assert len(behaviours) == 4
    async with stub_of(kind, behaviours) as stub:
        assert await stub("unary_unary")(b"ab", timeout=5) == b"ab"
        assert [reply async for reply in stub("unary_stream")(b"ab", timeout=5)] == [b"a", b"b"]
        assert await stub("stream_unary")(iter((b"a", b"b")), timeout=5) == b"ab"
        assert [reply async for reply in stub("stream_stream")(iter((b"a", b"b")), timeout=5)] == [b"a", b"b"]


async def test_a_plain_function_has_a_context_that_waits_in_its_thread(kind):
    def behave(request, context):
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata((("begin", sent["name"]),))
        context.set_trailing_metadata((("end", context.peer().partition(":")[0]),))
        assert 0 < context.time_remaining() <= 5.1
        return request

    async with stub_of(kind, {"unary_unary": behave}) as stub:
        call = stub("unary_unary")(b"x", timeout=5, metadata=(("name", "value"),))
        assert await call == b"x"
        assert ("begin", "value") in await call.initial_metadata()
        assert ("end", "ipv4") in await call.trailing_metadata()


async def test_a_plain_function_may_abort(kind):
    def behave(request, context):
        context.abort(grpc.StatusCode.ABORTED, "why", (("k", "v"),))
        return b"never sent"

    error = await of_unary(kind, behave)
    assert (error.code, error.details) == (Code.ABORTED, "why")
    assert ("k", "v") in error.trailing_metadata


async def test_a_generator_without_end_ends_with_its_caller(kind):
    closed = asyncio.Event()

    async def behave(request, context):
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    async with stub_of(kind, {"unary_stream": behave}) as stub:
        call = stub("unary_stream")(b"", timeout=5)
        assert await call.read() == b"x"
        call.cancel()
        await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.parametrize("ends", ["deadline", "cancel"])
@pytest.mark.parametrize("name", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_the_early_end_of_a_call_cancels_its_handler(kind, name, ends):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request, context):
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def stream(request, context):
        await wait(request, context)
        yield b""

    async with stub_of(kind, {name: stream if name.endswith("stream") else wait}) as stub:
        how = {"timeout": 0.3 if ends == "deadline" else 30}
        call = stub(name)(**how) if name.startswith("stream") else stub(name)(b"x", **how)
        await asyncio.wait_for(begun.wait(), 5)
        if ends == "cancel":
            call.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)
        assert await call.code() is (Code.CANCELLED if ends == "cancel" else Code.DEADLINE_EXCEEDED)
