"""What a connection costs that does nothing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl

import msgspec

from bench.transport.certificates import Certificate
from bench.transport.contenders import Contender, Kind

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_ACK = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))
_SETTLE_S = 0.5
_AT_ONCE = 50
_SPARE_FILES = 200


class IdleFigure(msgspec.Struct, frozen=True):
    """Resident memory of the server that `connections` idle connections brought, each."""

    kind: Kind
    connections: int
    kb_each: float


def allow_connections(connections: int) -> None:
    """Raise the limit of open files, for this process and the servers it starts from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def idle_cost(contender: Contender, connections: int, certificate: Certificate) -> IdleFigure:
    """Opens them, greets over HTTP/2 as any client does, and leaves them alone."""
    grown = asyncio.run(_grown(contender, connections, certificate))
    return IdleFigure(contender.kind, connections, round(grown / connections / 1024, 1))


async def _grown(contender: Contender, connections: int, certificate: Certificate) -> int:
    tls = None
    if contender.kind.tls:
        tls = ssl.create_default_context(cadata=certificate.chain.decode())
        tls.set_alpn_protocols(["h2"])
    async with contextlib.AsyncExitStack() as stack:
        await _open(contender.port, _AT_ONCE, tls, stack)  # what is allocated once is not counted
        await asyncio.sleep(_SETTLE_S)
        before = contender.rss_bytes()
        for _ in range(connections // _AT_ONCE):
            await _open(contender.port, _AT_ONCE, tls, stack)
        await asyncio.sleep(_SETTLE_S)
        return contender.rss_bytes() - before


async def _open(port: int, count: int, tls: ssl.SSLContext | None, stack: contextlib.AsyncExitStack) -> None:
    async def one() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(_PREFACE + _SETTINGS + _ACK)
        await reader.readexactly(len(_SETTINGS))
        return writer

    for writer in await asyncio.gather(*(one() for _ in range(count))):
        stack.callback(writer.close)  # and holds it: a stream that nobody holds closes its connection
