"""An echo server with faults, as a process: prints its port, serves until its standard input closes.

A request that starts with `stall` keeps the whole process for the milliseconds that follow; `late` answers that call
alone after them; `wrong` is answered with something else, `refuse` with UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable

import uvloop

from serving.transport import Call, Code, RpcError, Transport, server


def echo(payload: bytes, call: Call) -> bytes | Awaitable[bytes]:
    word, _, argument = payload.partition(b" ")
    if word == b"stall":
        time.sleep(int(argument) / 1000)  # the point of it
    elif word == b"late":
        return later(payload, int(argument) / 1000)
    elif word == b"wrong":
        return b"something else"
    elif word == b"refuse":
        raise RpcError(Code.UNAVAILABLE, "as asked")
    elif word == b"headers" and not (call.time_remaining() and dict(call.metadata()).get("traceparent")):
        return b"missing"
    return payload


async def later(payload: bytes, seconds: float) -> bytes:
    await asyncio.sleep(seconds)
    return payload


async def main() -> None:
    serving = server(Transport.NATIVE)
    serving.add_bytes_handler("/test.Echo/Echo", echo)
    port = serving.add_port("127.0.0.1:0")
    await serving.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await serving.stop(0)


if __name__ == "__main__":
    uvloop.run(main())
