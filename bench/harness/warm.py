"""Calls that are made before a measurement, so that caches hold what the scenario is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from serving.transport import Transport, channel

_AT_ONCE = 32
_TIMEOUT_S = 30.0


def call_all(address: str, method: str, bodies: Iterable[bytes]) -> None:
    """Each once; raises RpcError when one fails."""
    asyncio.run(_call_all(address, method, iter(bodies)))


async def _call_all(address: str, method: str, bodies: Iterable[bytes]) -> None:
    link = channel(Transport.NATIVE, address)

    async def caller() -> None:
        for body in bodies:
            await link.unary(method, body, _TIMEOUT_S)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(caller())
    finally:
        await link.close()


def first(count: int, body: Callable[[int], bytes]) -> Iterable[bytes]:
    return (body(number) for number in range(count))
