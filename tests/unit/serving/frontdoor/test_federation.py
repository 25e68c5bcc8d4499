"""Federation/Infer as another party's bytes meet it."""

import asyncio
import time

import numpy as np
import pytest

from apps.app import PartyStatus
from serving.frontdoor.federation import INFER
from serving.peers.peer import PROTOCOL
from serving.settings import PeerSettings, Purpose, RateLimit
from serving.transport import Code, RpcError
from tessera.v1 import federation_pb2 as wire
from tests.unit.serving.peers.host_party import partial, shop


@pytest.fixture
async def host(tmp_path):
    async with shop(tmp_path, max_age_s=2.0) as running:
        yield running


def request(host, **changes):
    fields = {
        "protocol": PROTOCOL,
        "model": "m",
        "version": "1",
        "binding_digest": bytes.fromhex(host.handle.artifact.binding_digest),
        "user_ids": ["u1", "nobody", "u2"],
    }
    return wire.InferRequest(**{**fields, **changes})


async def refused(host, raw):
    with pytest.raises(RpcError) as raised:
        await host.link.unary(INFER, raw, 5.0)
    assert host.asked == []
    return raised.value.code, raised.value.details


async def test_the_reply_is_columnar_and_in_request_order(host):
    reply = wire.InferReply.FromString(await host.link.unary(INFER, request(host).SerializeToString(), 5.0))
    assert reply.protocol == PROTOCOL
    assert reply.binding_digest.hex() == host.handle.artifact.binding_digest
    assert reply.width == 1
    assert np.frombuffer(reply.partials, "<f8").tolist() == [partial("u1"), 0.0, partial("u2")]
    assert list(reply.statuses) == [0, 1, 0]
    assert list(reply.max_age_ms) == [2_000] * 3


async def test_what_is_at_hand_is_answered_at_once_and_the_rest_in_time(host):
    raw = request(host).SerializeToString()
    at_once = host.door.infer(raw, None)
    assert isinstance(at_once, bytes)
    host.answering_now.clear()
    in_time = host.door.infer(raw, None)
    assert not isinstance(in_time, bytes)
    host.answering_now.set()
    assert await in_time == at_once


async def test_a_newer_minor_protocol_is_fine(host):
    asked = request(host, protocol=wire.Protocol(major=1, minor=9))
    assert await host.link.unary(INFER, asked.SerializeToString(), 5.0)


@pytest.mark.parametrize("major", [0, 2])
async def test_another_major_protocol_is_refused_naming_both(host, major):
    asked = request(host, protocol=wire.Protocol(major=major))
    code, text = await refused(host, asked.SerializeToString())
    assert code is Code.FAILED_PRECONDITION
    assert f"protocol {major} was asked for, this party speaks 1" in text


async def test_another_binding_is_refused_naming_both(host):
    code, text = await refused(host, request(host, binding_digest=b"\x07" * 32).SerializeToString())
    assert code is Code.FAILED_PRECONDITION
    assert "07" * 32 in text
    assert host.handle.artifact.binding_digest in text


async def test_bytes_that_are_no_request_are_refused(host):
    assert await refused(host, b"\xff\xff") == (
        Code.INVALID_ARGUMENT,
        "the request is not a tessera.v1.InferRequest",
    )


@pytest.mark.parametrize("users", [[], ["u"] * 51])
async def test_the_size_of_a_batch_is_limited(host, users):
    code, text = await refused(host, request(host, user_ids=users).SerializeToString())
    assert code is Code.RESOURCE_EXHAUSTED
    assert f"{len(users)} users in one call, this party answers 1 to 50" in text


@pytest.mark.parametrize("purpose", [wire.PURPOSE_WARMUP, wire.PURPOSE_SHADOW, wire.PURPOSE_HEDGE, 99])
async def test_only_the_business_call_is_answered(host, purpose):
    code, _ = await refused(host, request(host, purpose=purpose).SerializeToString())
    assert code is Code.PERMISSION_DENIED


async def test_a_model_that_is_not_loaded_is_named(host):
    assert await refused(host, request(host, version="2").SerializeToString()) == (
        Code.NOT_FOUND,
        "model m/2 is not loaded at this party",
    )


async def test_a_party_that_is_not_the_guest_is_refused(tmp_path):
    async with shop(tmp_path, caller="bakery") as host:
        assert await refused(host, request(host).SerializeToString()) == (
            Code.PERMISSION_DENIED,
            "party 'bakery' is not the guest of model m/1",
        )


async def test_features_that_the_source_lacks_are_our_fault_and_stay_here(host, caplog):
    host.features.clear()
    host.features["u1"] = {"z": 1.0}
    with pytest.raises(RpcError) as raised:
        await host.link.unary(INFER, request(host).SerializeToString(), 5.0)
    assert raised.value.code is Code.INTERNAL
    assert "request id" in raised.value.details
    assert "'x'" not in raised.value.details
    assert "lack 'x', 'y'" in caplog.text


async def test_what_a_party_may_not_ask_is_refused_row_by_row(tmp_path):
    async with shop(tmp_path, allowed=PeerSettings(budget=2, purposes=(Purpose.INFER, Purpose.SHADOW))) as host:
        asked = request(host, purpose=wire.PURPOSE_SHADOW, user_ids=["u1", "nobody", "u2"])
        reply = wire.InferReply.FromString(await host.link.unary(INFER, asked.SerializeToString(), 5.0))
        assert host.asked.pop() == ["u1", "nobody"]
        assert list(reply.statuses) == [PartyStatus.OK, PartyStatus.NOT_FOUND, PartyStatus.REJECTED]
        assert np.frombuffer(reply.partials, "<f8").tolist() == [partial("u1"), 0.0, 0.0]
        code, text = await refused(host, request(host, user_ids=["u2"]).SerializeToString())
        assert code is Code.RESOURCE_EXHAUSTED
        assert "the query budget is spent: 2 users and versions" in text
        again = await host.peer.infer(
            host.handle.id,
            host.handle.artifact.binding_digest,
            ["u2", "u1"],
            host.handle.wanted["shop"],
            time.monotonic() + 5,
        )
        assert again.statuses == [PartyStatus.REJECTED, PartyStatus.OK]


async def test_a_party_that_asks_too_much_is_told_when_to_come_again(tmp_path):
    limit = RateLimit(per_s=0.5, burst=1, concurrent=1)
    async with shop(tmp_path, allowed=PeerSettings(limit=limit)) as host:
        asked = request(host, user_ids=["u1"]).SerializeToString()
        await host.link.unary(INFER, asked, 5.0)
        with pytest.raises(RpcError) as refused:
            await host.link.unary(INFER, asked, 5.0)
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert refused.value.details == "party 'bank' is limited to 0.5 rows a second"
    assert 0 < int(dict(refused.value.trailing_metadata)["grpc-retry-pushback-ms"]) <= 2_000


async def test_calls_at_once_are_counted_until_they_end(tmp_path):
    async with shop(tmp_path, allowed=PeerSettings(limit=RateLimit(concurrent=1))) as host:
        asked = request(host, user_ids=["u1"]).SerializeToString()
        host.answering_now.clear()
        first = asyncio.ensure_future(host.link.unary(INFER, asked, 5.0))
        while not host.asked:
            await asyncio.sleep(0)
        with pytest.raises(RpcError, match="party 'bank' is limited to 1 calls at once"):
            await host.link.unary(INFER, asked, 5.0)
        host.answering_now.set()
        await first
        await host.link.unary(INFER, asked, 5.0)
