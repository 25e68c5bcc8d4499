"""What the doctor makes of what another party says of itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from serving.certificates import make_authority, make_certificate
from serving.doctor.finding import Finding, Level, skew
from serving.doctor.parties import peer
from serving.host import HalfState
from serving.peers.peer import PROTOCOL
from serving.peers.status import STATUS
from serving.pool import ModelId
from serving.transport import (
    ChannelCredentials,
    ChannelOptions,
    ClientCertificates,
    Code,
    RpcError,
    ServerCredentials,
    ServerOptions,
    Transport,
    channel,
    server,
)
from serving.version import SOFTWARE
from tessera.v1 import federation_pb2 as wire

V1 = (ModelId("m", "1"), "ab" * 32)


def said(**changes: Any) -> bytes:
    fields = {"protocol": PROTOCOL, "software": SOFTWARE, "time_ms": time.time_ns() // 1_000_000, "caller": "bank"}
    return wire.StatusReply(**{**fields, **changes}).SerializeToString()


async def found(reply: bytes | RpcError, *models: tuple[ModelId, str]) -> list[Finding]:
    """Of a party that answers so."""

    def answer(raw: bytes, call: object) -> bytes:
        if isinstance(reply, RpcError):
            raise reply
        return reply

    made = server(Transport.NATIVE, ServerOptions())
    made.add_bytes_handler(STATUS, answer)
    port = made.add_port("127.0.0.1:0")
    await made.start()
    try:
        return [one async for one in peer("peers.shop", channel(Transport.NATIVE, f"127.0.0.1:{port}"), models)]
    finally:
        await made.stop(0)


def wrong(findings: list[Finding]) -> list[tuple[Level, str]]:
    return [(one.level, one.text) for one in findings if one.level is not Level.OK]


async def test_a_party_that_is_well() -> None:
    findings = await found(said(halves=[HalfState.READY.value]), V1)
    assert wrong(findings) == []
    assert [one.text for one in findings][-1] == "model m/1 is ready there"


@pytest.mark.parametrize(("off_s", "direction"), [(3_600, "ahead of"), (-60, "behind")])
async def test_a_clock_that_is_wrong(off_s: int, direction: str) -> None:
    [(level, text)] = wrong(await found(said(time_ms=(time.time_ns() // 1_000_000) + 1_000 * off_s)))
    assert level is Level.WARNING
    seconds = float(text.removeprefix("its clock is ").partition(" ")[0])
    assert seconds == pytest.approx(abs(off_s), abs=1.5)
    assert text.endswith(f" s {direction} ours: synchronise")


@pytest.mark.parametrize(
    ("skew_s", "level", "text"),
    [
        (2.0, Level.OK, "clocks agree within 2.000 s"),
        (0.0, Level.OK, "clocks agree within 0.001 s"),
        (2.1, Level.WARNING, "its clock is 2.1 s ahead of ours: synchronise"),
        (-2.1, Level.WARNING, "its clock is 2.1 s behind ours: synchronise"),
    ],
)
def test_how_far_clocks_may_be_apart(skew_s: float, level: Level, text: str) -> None:
    assert skew("control.url", skew_s) == Finding(level, "control.url", text)


async def test_another_protocol_and_another_version_of_the_software() -> None:
    [(level, text)] = wrong(await found(said(protocol=wire.Protocol(major=2, minor=1))))
    assert (level, text) == (Level.ERROR, "speaks protocol 2.1, this node 1")
    texts = [one.text for one in await found(said(software="9.9"))]
    assert f"runs version 9.9, this node {SOFTWARE}; the protocol is the same" in texts


@pytest.mark.parametrize("half", [state for state in HalfState if state is not HalfState.READY])
async def test_a_half_that_does_not_go_with_ours(half: HalfState) -> None:
    [(level, text)] = wrong(await found(said(halves=[half.value]), V1))
    assert level is Level.ERROR
    assert text.startswith("model m/1 ")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (RpcError(Code.PERMISSION_DENIED, "who?"), "does not take us for a party it knows: who?"),
        (RpcError(Code.UNIMPLEMENTED, "no"), "something else than a party port of this version answers there"),
        (RpcError(Code.INTERNAL, "oh"), "INTERNAL: oh"),
        (b"\xff\xff", "its reply to Status cannot be used"),
        (said(halves=[99]), "its reply to Status cannot be used"),
        (said(), "its reply to Status names 0 versions of 1"),
    ],
    ids=["unknown caller", "other service", "failure", "garbage", "unknown state", "too few"],
)
async def test_an_answer_that_is_none(reply: bytes | RpcError, text: str) -> None:
    assert wrong(await found(reply, V1)) == [(Level.ERROR, text)]


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two that do not know each other, each with a certificate for `bank` and one for `shop`."""
    made = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    for folder in made:
        make_authority(folder, "test")
        for party in ("bank", "shop"):
            make_certificate(folder, party, ["127.0.0.1"])
    return made


@pytest.mark.parametrize("kind", Transport)
@pytest.mark.parametrize(
    ("calls", "answers", "cause"),
    [
        ("one", "one", ""),
        ("", "one", "it may want TLS, which tls.party is for"),
        ("one", "", "this node calls with TLS, and no TLS answers there"),
        ("mixed", "one", "it may not trust the certificate of this node (tls.party)"),
        ("other", "one", "certificate"),
    ],
    ids=["trusted", "without TLS", "no TLS there", "not trusted there", "not trusted here"],
)
async def test_what_does_not_fit_about_tls(
    authorities: tuple[Path, Path], kind: Transport, calls: str, answers: str, cause: str
) -> None:
    one, other = authorities
    trusted, own = {"one": (one, one), "mixed": (one, other), "other": (other, other)}.get(calls, (one, one))
    required = ClientCertificates.REQUIRED
    theirs = await asyncio.to_thread(ServerCredentials, one / "shop.pem", one / "shop.key", one / "ca.pem", required)
    credentials = await asyncio.to_thread(
        ChannelCredentials, trusted / "ca.pem", own / "bank.pem", own / "bank.key", "shop"
    )
    made = server(kind, ServerOptions())
    made.add_bytes_handler(STATUS, lambda raw, call: said())
    port = made.add_port("127.0.0.1:0", theirs if answers else None)
    await made.start()
    try:
        link = channel(kind, f"127.0.0.1:{port}", ChannelOptions(credentials=credentials if calls else None))
        found = wrong([one async for one in peer("peers.shop", link, (), bool(calls))])
    finally:
        await made.stop(0)
    assert bool(found) is bool(cause)
    for level, text in found:
        assert (level, "\n" in text) == (Level.ERROR, False)
        assert text.startswith("does not answer at its address: ")
        assert cause in text.lower() if calls == "other" else cause in text
