"""More calls than a grpcio server begins: what waits within grpc is bounded where calls are."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from serving.transport import Call, RpcError, ServerOptions, Transport, channel, server

ECHO = "/test.Echo/Echo"
LIMIT, AT_ONCE = 200, 600


async def outcomes(limit: int | None, caller: Transport) -> Counter[str]:
    """Of calls that all come at the same moment, and of one afterwards."""
    serving = server(Transport.GRPCIO, ServerOptions(max_concurrent_calls=limit))
    serving.add_bytes_handler(ECHO, _echo)
    port = serving.add_port("127.0.0.1:0")
    await serving.start()
    link = channel(caller, f"127.0.0.1:{port}")

    async def call() -> str:
        try:
            await link.unary(ECHO, b"x", 20)
        except RpcError as error:
            return error.code.name
        return "OK"

    try:
        found = Counter(await asyncio.gather(*(call() for _ in range(AT_ONCE))))
        assert await call() == "OK"
        return found
    finally:
        await link.close()
        await serving.stop(0)


def _echo(payload: bytes, call: Call) -> bytes:
    return payload


@pytest.mark.parametrize(("caller", "dropped"), [(Transport.NATIVE, "CANCELLED"), (Transport.GRPCIO, "UNAVAILABLE")])
async def test_calls_beyond_those_that_may_wait_are_dropped(caller: Transport, dropped: str) -> None:
    found = await outcomes(LIMIT, caller)
    assert found["OK"] >= LIMIT // 4
    assert found[dropped] > 0
    assert found.keys() <= {"OK", dropped, "RESOURCE_EXHAUSTED"}


async def test_without_a_limit_they_wait() -> None:
    assert await outcomes(None, Transport.NATIVE) == {"OK": AT_ONCE}
