"""Plain functions as handlers, in threads: a call that ends early gives its thread back."""

import asyncio
import contextlib
import threading

import grpc
import pytest

from serving.transport import ChannelOptions, Code, RpcError, ServerOptions, Transport, channel
from serving.transport.native_server import NativeServer
from tests.contract.services import registers

THREADS = 2
TIMES = 3


class Handlers:
    """Plain functions that wait for a caller who has gone. `left` counts those that came back, by how."""

    def __init__(self):
        self.begun = threading.Semaphore(0)
        self.left = []

    def stream_unary(self, requests, context):
        with self._watched():
            return b"".join(requests)

    def stream_stream(self, requests, context):
        with self._watched():
            yield b"begun"
            yield from requests

    def unary_stream(self, request, context):
        with self._watched():
            while True:
                yield b"x" * 50_000

    def unary_unary(self, request, context):
        return request

    @contextlib.contextmanager
    def _watched(self):
        self.begun.release()
        try:
            yield
        except BaseException as error:
            self.left.append(type(error))
            raise
        else:
            self.left.append(None)


@contextlib.asynccontextmanager
async def serving(handlers):
    made = NativeServer(ServerOptions(max_threads=THREADS))
    registers(made, {name: getattr(handlers, name) for name in ("stream_unary", "stream_stream", "unary_stream")})
    made.registry.add_registered_method_handlers(
        "test.Plain", {"Echo": grpc.unary_unary_rpc_method_handler(handlers.unary_unary)}
    )
    port = made.add_port("127.0.0.1:0")
    await made.start()
    try:
        yield made, f"127.0.0.1:{port}"
    finally:
        await made.stop(0)


async def cancel(made, call):
    call.cancel()


async def lose_the_connection(made, call):
    for protocol in list(made._connections):
        protocol.abort()


async def let_the_deadline_pass(made, call):
    await call.code()


async def finish_badly(made, call):
    for running in list(made.calls):
        running.cancel(RpcError(Code.INTERNAL, "a bad message"))


ENDS = [cancel, lose_the_connection, let_the_deadline_pass, finish_badly]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["stream_unary", "stream_stream", "unary_stream"])
async def test_an_early_end_gives_the_thread_back(name, end):
    handlers = Handlers()
    async with serving(handlers) as (made, address):
        for _ in range(TIMES):
            client = channel(Transport.NATIVE, address, ChannelOptions(backoff_max_s=0.01))
            method = getattr(client.stub_channel, name)(f"/test.Service/{name}")
            timeout_s = 0.2 if end is let_the_deadline_pass else 30
            call = method(b"x", timeout=timeout_s) if name == "unary_stream" else method(timeout=timeout_s)
            if name != "unary_stream":
                await call.write(b"one")
            assert await asyncio.to_thread(handlers.begun.acquire, timeout=5)
            await end(made, call)
            await client.close()
        again = channel(Transport.NATIVE, address)
        assert await again.unary("/test.Plain/Echo", b"x", 5) == b"x"  # a thread is free
        async with asyncio.timeout(5):
            while len(handlers.left) < TIMES:
                await again.unary("/test.Plain/Echo", b"x", 5)
        await again.close()
    assert None not in handlers.left  # a stream that was cut is not one that ended


async def test_plain_functions_leave_the_loops_own_threads_alone():
    """All of the server's threads are taken; what else needs one does not wait."""
    handlers = Handlers()
    async with serving(handlers) as (_, address):
        client = channel(Transport.NATIVE, address)
        calls = [client.stub_channel.stream_unary("/test.Service/stream_unary")(timeout=30) for _ in range(40)]
        for call in calls:
            await call.write(b"x")
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 5) == 1
        assert threading.active_count() < 40
        for call in calls:
            call.cancel()
        await client.close()
