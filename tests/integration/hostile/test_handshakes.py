"""Servers that do not come to speak HTTP/2 over TLS: a client says why, quietly, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress

import pytest

from serving.transport import ChannelOptions, Code, RpcError, Transport, channel, link
from tests.integration.hostile.test_peers import GARBAGE
from tests.integration.http2_peer import ECHO

HELLO_BEGUN = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"
"""The beginning of a ServerHello."""
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
"""A handshake failed, the server says."""


@asynccontextmanager
async def meeting(tls, meet, context=None):
    """A client of a server that deals so with each connection."""
    writers = []

    async def accept(reader, writer):
        writers.append(writer)
        with suppress(ConnectionError, ssl.SSLError):
            await meet(reader, writer)
        writer.close()

    before = asyncio.all_tasks()
    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    client = channel(Transport.NATIVE, address, ChannelOptions(credentials=tls.channel, backoff_max_s=0.01))
    try:
        yield client
    finally:
        await client.close()
        listener.close()
        for writer in writers:
            writer.transport.abort()
        await listener.wait_closed()
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0)


async def failures(client, timeout_s=5):
    """Of the first call and of one after it."""
    for call in (
        client.unary,
        lambda path, body, timeout_s: client.stub_channel.unary_unary(path)(body, timeout=timeout_s),
    ):
        with pytest.raises(RpcError) as caught:
            await call(ECHO, b"x", timeout_s)
        yield caught.value


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]], ids=["no ALPN", "HTTP/1.1"])
async def test_a_server_that_does_not_agree_on_http2_gets_no_call(tls, protocols, caplog):
    heard = bytearray()

    async def listen(reader, writer):
        heard.extend(await reader.read())

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.server._certificate, tls.server._key)
    if protocols:
        context.set_alpn_protocols(protocols)
    async with meeting(tls, listen, context) as client:
        async for error in failures(client):
            assert error.code is Code.UNAVAILABLE
            assert "does not agree on HTTP/2" in error.details
    assert ECHO.encode() not in heard
    assert not caplog.records


SAID = {**GARBAGE, "nothing": b"", "half a hello": HELLO_BEGUN, "an alert": ALERT}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
async def test_what_is_no_handshake_is_unavailable(tls, said, caplog):
    async def talk(reader, writer):
        await reader.read(65_536)
        writer.write(said)

    async with meeting(tls, talk) as client:
        async for error in failures(client):
            assert error.code is Code.UNAVAILABLE
            assert error.details.startswith("failed to connect")
    assert not caplog.records


SILENT = {"nothing": b"", "half a hello": HELLO_BEGUN}


async def stay(reader, said, writer):
    writer.write(said)
    while await reader.read(65_536):
        pass


@pytest.mark.parametrize("said", SILENT.values(), ids=SILENT.keys())
async def test_a_handshake_that_does_not_go_on_costs_callers_their_deadlines(tls, said, caplog):
    async with meeting(tls, lambda reader, writer: stay(reader, said, writer)) as client:
        async for error in failures(client, 0.05):
            assert error.code is Code.DEADLINE_EXCEEDED
    assert not caplog.records


@pytest.mark.parametrize("said", SILENT.values(), ids=SILENT.keys())
async def test_a_handshake_that_does_not_go_on_is_given_up_though_no_deadline_is_set(tls, said, caplog, monkeypatch):
    monkeypatch.setattr(link, "_CONNECT_S", 0.05)
    async with meeting(tls, lambda reader, writer: stay(reader, said, writer)) as client:
        async for error in failures(client, None):
            assert error.code is Code.UNAVAILABLE
            assert error.details.startswith("failed to connect")
    assert not caplog.records
