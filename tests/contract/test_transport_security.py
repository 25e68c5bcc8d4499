"""TLS of every implementation of the transport port, seen from every other's client."""

import asyncio
import contextlib
import itertools
import shutil
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import uvloop

from serving.certificates import make_authority, make_certificate
from serving.transport import (
    ChannelCredentials,
    ChannelOptions,
    ClientCertificates,
    Code,
    CredentialsError,
    RpcError,
    ServerCredentials,
    Transport,
    channel,
    server,
)
from tests.contract.services import registers

ECHO = "/test.Echo/Echo"
PAIRS = list(itertools.product(Transport, Transport))


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0].value}-serves-{pair[1].value}")
def kinds(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("certificates")
    make_authority(made, "trusted")
    for party in ("bank", "shop"):
        make_certificate(made, party, ["127.0.0.1", "localhost"])
    other = made / "other"
    make_authority(other, "stranger")
    make_certificate(other, "bank", ["127.0.0.1"])
    return made


async def of_server(folder, clients=ClientCertificates.NONE, **options):
    authority = None if clients is ClientCertificates.NONE else folder / "ca.pem"
    files = folder / "shop.pem", folder / "shop.key", authority
    return await asyncio.to_thread(ServerCredentials, *files, clients, **options)


async def of_client(folder, **options):
    return await asyncio.to_thread(ChannelCredentials, folder / "ca.pem", **options)


async def as_bank(folder):
    return await of_client(folder, certificate=folder / "bank.pem", key=folder / "bank.key")


def echo(payload, call):
    return payload + b"|" + ",".join(call.peer_identities()).encode()


@asynccontextmanager
async def serving(kind, credentials, handler=echo, address="127.0.0.1:0"):
    made = server(kind)
    made.add_bytes_handler(ECHO, handler)
    port = made.add_port(address, credentials)
    await made.start()
    try:
        yield address.replace(":0", f":{port}") if port else address
    finally:
        await made.stop(0)


async def ask(kind, address, credentials, request=b"hello"):
    client = channel(kind, address, ChannelOptions(credentials=credentials))
    try:
        return await client.unary(ECHO, request, 5)
    finally:
        await client.close()


async def refusal(kind, address, credentials):
    with pytest.raises(RpcError) as caught:
        await ask(kind, address, credentials)
    assert caught.value.code is Code.UNAVAILABLE
    return caught.value.details


async def test_calls_over_tls(kinds, folder):
    async with serving(kinds[0], await of_server(folder)) as address:
        assert await ask(kinds[1], address, await of_client(folder)) == b"hello|"
        assert (
            await ask(kinds[1], address, await of_client(folder, server_name="shop"), b"x" * 1_000_000)
            == b"x" * 1_000_000 + b"|"
        )


async def test_a_server_that_nobody_trusts_is_refused(kinds, folder):
    async with serving(kinds[0], await of_server(folder)) as address:
        await refusal(kinds[1], address, await of_client(folder / "other"))
        await refusal(kinds[1], address, await of_client(folder, server_name="bank"))


async def test_a_client_may_have_to_show_a_certificate(kinds, folder):
    async with serving(kinds[0], await of_server(folder, ClientCertificates.REQUIRED)) as address:
        assert await ask(kinds[1], address, await as_bank(folder)) == b"hello|bank,127.0.0.1,localhost"
        await refusal(kinds[1], address, await of_client(folder))
        other = folder / "other"
        await refusal(
            kinds[1], address, await of_client(folder, certificate=other / "bank.pem", key=other / "bank.key")
        )


async def test_a_client_without_tls_is_refused(kinds, folder):
    async with serving(kinds[0], await of_server(folder)) as address:
        await refusal(kinds[1], address, None)


async def test_a_server_without_tls_is_refused(kinds, folder):
    async with serving(kinds[0], None) as address:
        await refusal(kinds[1], address, await of_client(folder))


async def test_servicers_see_who_calls(kinds, folder):
    seen = []

    async def behave(request, context):
        seen.append((context.peer_identities(), context.peer_identity_key(), context.auth_context()))
        return b""

    made = server(kinds[0])
    registers(made, {"unary_unary": behave})
    port = made.add_port("127.0.0.1:0", await of_server(folder, ClientCertificates.REQUIRED))
    await made.start()
    try:
        client = channel(kinds[1], f"127.0.0.1:{port}", ChannelOptions(credentials=await as_bank(folder)))
        await client.stub_channel.unary_unary("/test.Service/unary_unary")(b"", timeout=5)
        await client.close()
    finally:
        await made.stop(0)
    [(names, key, properties)] = seen
    assert list(names) == [b"bank", b"127.0.0.1", b"localhost"]
    assert key == "x509_subject_alternative_name"
    assert properties["transport_security_type"] == [b"ssl"]
    assert properties["x509_common_name"] == [b"bank"]
    assert properties["x509_pem_cert"][0] == (folder / "bank.pem").read_bytes()


async def test_a_new_certificate_is_taken_without_a_restart(kinds, folder, tmp_path):
    for name in ("ca.pem", "ca.key"):
        shutil.copy(folder / name, tmp_path)
    await asyncio.to_thread(make_certificate, tmp_path, "shop", ["old"])
    async with serving(kinds[0], await of_server(tmp_path)) as address:
        client = channel(kinds[1], address, ChannelOptions(credentials=await of_client(tmp_path, server_name="old")))
        assert await client.unary(ECHO, b"before", 5) == b"before|"
        await asyncio.to_thread(make_certificate, tmp_path, "shop", ["new"])
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(RpcError):
                    assert await ask(kinds[1], address, await of_client(tmp_path, server_name="new")) == b"hello|"
                    break
        assert await client.unary(ECHO, b"after", 5) == b"after|"  # on its old connection
        await client.close()


@pytest.mark.parametrize("secured", [False, True])
async def test_calls_over_a_unix_socket(kinds, folder, tmp_path, secured):
    path = f"unix:{tmp_path / 'socket'}"
    mutual = await of_server(folder, ClientCertificates.REQUIRED) if secured else None
    async with serving(kinds[0], mutual, address=path) as address:
        assert (await ask(kinds[1], address, await as_bank(folder) if secured else None)).startswith(b"hello|")
        with pytest.raises(OSError, match="cannot bind unix:"):
            async with serving(kinds[0], mutual, address=path):
                pass
    assert not (tmp_path / "socket").exists()


async def test_the_native_server_may_ask_for_a_certificate_without_requiring_it(folder):
    async with serving(Transport.NATIVE, await of_server(folder, ClientCertificates.OPTIONAL)) as address:
        for kind in Transport:
            assert await ask(kind, address, await as_bank(folder)) == b"hello|bank,127.0.0.1,localhost"
            assert await ask(kind, address, await of_client(folder)) == b"hello|"
    with pytest.raises(CredentialsError, match="use the transport native"):
        async with serving(Transport.GRPCIO, await of_server(folder, ClientCertificates.OPTIONAL)):
            pass


async def test_an_expired_certificate_is_refused_on_both_sides(folder, tmp_path):
    for name in ("ca.pem", "ca.key"):
        shutil.copy(folder / name, tmp_path)
    long_ago = datetime.now(UTC) - timedelta(days=30)
    for party in ("bank", "shop"):
        await asyncio.to_thread(make_certificate, tmp_path, party, ["127.0.0.1"], 10, long_ago)
    async with serving(Transport.NATIVE, await of_server(tmp_path)) as address:
        assert "expired" in await refusal(Transport.NATIVE, address, await of_client(tmp_path))
    async with serving(Transport.NATIVE, await of_server(folder, ClientCertificates.REQUIRED)) as address:
        await refusal(Transport.NATIVE, address, await as_bank(tmp_path))


async def test_a_peer_that_does_not_agree_on_http2_is_closed(folder):
    made = server(Transport.NATIVE)
    port = made.add_port("127.0.0.1:0", await of_server(folder))
    await made.start()
    try:
        for protocols in ([], ["http/1.1"]):
            context = ssl.create_default_context(cafile=folder / "ca.pem")
            if protocols:
                context.set_alpn_protocols(protocols)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            assert await reader.read() == b""
            writer.close()
        assert made.closed_for == {"TLS without ALPN h2": 2}
    finally:
        await made.stop(0)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_versions_are_refused(folder):
    async with serving(Transport.NATIVE, await of_server(folder)) as address:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]), ssl=context)


FORBIDDEN = "ECDHE+AES+SHA256:ECDHE+AES+SHA384:ECDHE+AES+SHA1:@SECLEVEL=0"
"""Some of those of RFC 9113, appendix A."""


async def test_ciphers_that_http2_forbids_are_refused(folder):
    async with serving(Transport.NATIVE, await of_server(folder)) as address:
        for ciphers, refused in ((FORBIDDEN, True), (FORBIDDEN + ":ECDHE+AESGCM", False)):
            context = ssl.create_default_context(cafile=folder / "ca.pem")
            context.set_alpn_protocols(["h2"])
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            connecting = asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]), ssl=context)
            if refused:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await connecting
            else:
                _, writer = await connecting
                assert "GCM" in writer.get_extra_info("cipher")[0]
                writer.close()


async def test_listeners_do_not_renegotiate(folder):
    credentials = await of_server(folder)
    for context in (credentials.context, credentials.loaded.context):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_handshakes_that_come_to_nothing_are_counted_and_forgotten(folder):
    made = server(Transport.NATIVE)
    port = made.add_port("127.0.0.1:0", await of_server(folder))
    await made.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        assert made.closed_for == {"TLS handshake failed or slow": 1}
        assert not made.arriving
    finally:
        await made.stop(0)


def test_tls_on_uvloop(folder):
    async def through():
        for kind in Transport:
            async with serving(kind, await of_server(folder, ClientCertificates.REQUIRED)) as address:
                for client in Transport:
                    large = b"x" * 3_000_000
                    assert (await ask(client, address, await as_bank(folder), large)).startswith(large + b"|bank")

    uvloop.run(through())


async def test_a_listening_socket_handed_in_outlives_its_server(folder):
    """As a supervisor keeps it for the next worker."""
    with socket.create_server(("127.0.0.1", 0)) as kept:
        address = f"127.0.0.1:{kept.getsockname()[1]}"
        for round_number in range(2):
            made = server(Transport.NATIVE)
            made.add_bytes_handler(ECHO, lambda payload, call, number=round_number: payload + b"%d" % number)
            made.add_socket(kept.dup(), await of_server(folder))
            await made.start()
            assert await ask(Transport.NATIVE, address, await of_client(folder)) == b"hello%d" % round_number
            await made.stop(0)
        with socket.create_connection(kept.getsockname(), timeout=5):  # it still listens
            pass
    with pytest.raises(OSError, match="use the transport native"):
        server(Transport.GRPCIO).add_socket(socket.create_server(("127.0.0.1", 0)))


@pytest.mark.parametrize("missing", ["shop.pem", "shop.key", "ca.pem"])
def test_a_file_that_is_missing_or_broken_is_named(folder, tmp_path, missing):
    for name in ("shop.pem", "shop.key", "ca.pem"):
        shutil.copy(folder / name, tmp_path)
    files = tmp_path / "shop.pem", tmp_path / "shop.key", tmp_path / "ca.pem"
    made = ServerCredentials(*files, ClientCertificates.REQUIRED)
    for content in (b"", b"garbage", (folder / "bank.key").read_bytes()):
        (tmp_path / missing).write_bytes(content)
        with pytest.raises(CredentialsError, match=missing.replace(".", r"\.")):
            ServerCredentials(*files, ClientCertificates.REQUIRED)
    (tmp_path / missing).unlink()
    with pytest.raises(CredentialsError, match=missing.replace(".", r"\.")):
        ServerCredentials(*files, ClientCertificates.REQUIRED)
    before = made.loaded
    assert not made.refresh()
    assert made.loaded is before


def test_combinations_that_make_no_sense_are_refused(folder):
    with pytest.raises(CredentialsError, match="no authority"):
        ServerCredentials(folder / "shop.pem", folder / "shop.key", None, ClientCertificates.REQUIRED)
    with pytest.raises(CredentialsError, match="come together"):
        ChannelCredentials(certificate=folder / "shop.pem")
