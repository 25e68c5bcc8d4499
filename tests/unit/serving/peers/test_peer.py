import asyncio

import numpy as np
import pytest

from apps.app import PartyStatus
from loaders.loader import PartialForm, PartialSpec
from serving.errors import PeerUnavailableError
from serving.holds import Holder
from serving.peers.peer import LATE, PROTOCOL, Peer
from serving.pool import ModelId
from serving.transport import Code, RpcError, Transport, channel
from tessera.v1 import federation_pb2 as wire
from tests.unit.serving.peers.host_party import partial, served, shop

MODEL = ModelId("m", "1")
DIGEST = "ab" * 32
ONE = PartialSpec(PartialForm.NUMBERS, 1)
OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, MISMATCH, INTERNAL = PartyStatus


def soon(timeout_s=5.0):
    return asyncio.get_running_loop().time() + timeout_s


def good_reply(**changes):
    fields = {
        "protocol": PROTOCOL,
        "binding_digest": bytes.fromhex(DIGEST),
        "width": 1,
        "partials": np.array([1.5, 2.5]).astype("<f8").tobytes(),
        "statuses": bytes([OK, OK]),
    }
    return wire.InferReply(**{**fields, **changes}).SerializeToString()


async def told(reply, deadline_s=5.0):
    """What a peer makes of one answer of a host, bytes or an error, to a call for two users."""

    def handle(raw, call):
        if isinstance(reply, Exception):
            raise reply
        return reply

    async with served(handle) as (link, _):
        return await Peer("shop", link).infer(MODEL, DIGEST, ["u1", "u2"], ONE, soon(deadline_s))


async def test_partials_come_in_the_order_asked(tmp_path):
    async with shop(tmp_path) as host:
        digest = host.handle.artifact.binding_digest
        answer = await host.peer.infer(MODEL, digest, ["u2", "nobody", "u1", "broken"], ONE, soon())
    assert answer.statuses == [OK, NOT_FOUND, OK, INTERNAL]
    assert answer.values.tolist() == [[partial("u2")], [0.0], [partial("u1")], [0.0]]
    assert answer.max_age_ms is None


async def test_the_host_says_for_how_long(tmp_path):
    async with shop(tmp_path, max_age_s=1.5) as host:
        answer = await host.peer.infer(MODEL, host.handle.artifact.binding_digest, ["u1", "u2"], ONE, soon())
    assert answer.max_age_ms == [1500, 1500]


async def test_another_binding_is_a_mismatch_that_names_both(tmp_path):
    async with shop(tmp_path) as host:
        answer = await host.peer.infer(MODEL, DIGEST, ["u1"], ONE, soon())
        assert answer.statuses == [MISMATCH]
        assert DIGEST in answer.reason
        assert host.handle.artifact.binding_digest in answer.reason
        assert host.asked == []


async def test_a_model_that_is_not_loaded_there_is_named(tmp_path):
    async with shop(tmp_path) as host:
        answer = await host.peer.infer(ModelId("m", "2"), DIGEST, ["u1"], ONE, soon())
    assert answer.statuses == [REJECTED]
    assert answer.reason == "rejected, no such model: model m/2 is not loaded at this party"


async def test_only_the_guest_of_a_model_is_answered(tmp_path):
    async with shop(tmp_path, caller="thief") as host:
        answer = await host.peer.infer(MODEL, host.handle.artifact.binding_digest, ["u1"], ONE, soon())
        assert answer.statuses == [REJECTED]
        assert "'thief' is not the guest of model m/1" in answer.reason
        assert host.asked == []


async def test_too_many_users_in_one_call_are_refused(tmp_path):
    async with shop(tmp_path) as host:
        answer = await host.peer.infer(MODEL, host.handle.artifact.binding_digest, ["u1"] * 51, ONE, soon())
    assert answer.statuses == [REJECTED] * 51
    assert answer.reason == "rejected, over a limit: 51 users in one call, this party answers 1 to 50"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.DEADLINE_EXCEEDED, TIMEOUT),
        (Code.UNAVAILABLE, UNREACHABLE),
        (Code.FAILED_PRECONDITION, MISMATCH),
        (Code.UNIMPLEMENTED, MISMATCH),
        (Code.PERMISSION_DENIED, REJECTED),
        (Code.UNAUTHENTICATED, REJECTED),
        (Code.RESOURCE_EXHAUSTED, REJECTED),
        (Code.INTERNAL, INTERNAL),
        (Code.UNKNOWN, INTERNAL),
    ],
)
async def test_every_code_becomes_a_status(code, status):
    answer = await told(RpcError(code, "because"))
    assert answer.statuses == [status, status]
    assert answer.values.tolist() == [[0.0], [0.0]]
    assert ("because" in answer.reason) == (status not in {TIMEOUT, UNREACHABLE})


async def test_nobody_there_is_unreachable_and_no_address_gets_out():
    link = channel(Transport.NATIVE, "127.0.0.1:1")
    answer = await Peer("shop", link).infer(MODEL, DIGEST, ["u1"], ONE, soon())
    await link.close()
    assert (answer.statuses, answer.reason) == ([UNREACHABLE], "unreachable")


async def test_a_spent_deadline_makes_no_call(tmp_path):
    async with shop(tmp_path) as host:
        answer = await host.peer.infer(MODEL, host.handle.artifact.binding_digest, ["u1"], ONE, soon(0))
        assert (answer.statuses, answer.reason) == ([TIMEOUT], LATE)
        assert host.asked == []


async def test_a_host_that_does_not_answer_in_time():
    async def handle(raw, call):
        await asyncio.Event().wait()

    async with served(handle) as (link, _):
        answer = await Peer("shop", link).infer(MODEL, DIGEST, ["u1"], ONE, soon(0.05))
    assert (answer.statuses, answer.reason) == ([TIMEOUT], LATE)


async def test_the_scripted_host_is_understood_when_it_keeps_to_the_protocol():
    answer = await told(good_reply(max_age_ms=[0, 7]))
    assert answer.values.tolist() == [[1.5], [2.5]]
    assert (answer.statuses, answer.max_age_ms) == ([OK, OK], [0, 7])


async def test_values_of_rows_that_failed_do_not_count():
    answer = await told(good_reply(statuses=bytes([OK, NOT_FOUND])))
    assert answer.values.tolist() == [[1.5], [0.0]]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"\xff\xff\xff", "cannot be used"),
        (b"", "protocol 0, ours is 1"),
        (good_reply(protocol=wire.Protocol(major=2)), "protocol 2, ours is 1"),
        (good_reply(binding_digest=b"\x01" * 32), f"binding {'01' * 32}, ours is {DIGEST}"),
        (good_reply(width=2), "width 2 and 16 bytes for 2 rows of width 1"),
        (good_reply(partials=bytes(8)), "8 bytes for 2 rows"),
        (good_reply(partials=bytes(15)), "15 bytes"),
        (good_reply(statuses=b"\0"), "for 2 rows"),
        (good_reply(statuses=b"\0\xff"), "statuses that cannot be"),
        (good_reply(max_age_ms=[1]), "ages"),
        (good_reply(partials=np.array([1.0, np.nan]).tobytes()), "not finite"),
        (good_reply(partials=np.array([np.inf, 1.0]).tobytes()), "not finite"),
        (good_reply(leaves=bytes(8)), "not only these"),
        (good_reply(partials=b"", directions=bytes(2)), "carries no numbers"),
    ],
)
async def test_a_reply_that_breaks_the_protocol_is_a_mismatch(reply, said):
    answer = await told(reply)
    assert answer.statuses == [MISMATCH, MISMATCH]
    assert said in answer.reason
    assert not answer.values.any()


async def test_load_hold_and_release_name_the_party_when_it_cannot_be_asked():
    link = channel(Transport.NATIVE, "127.0.0.1:1")
    peer = Peer("shop", link)
    holder = Holder("s", 1, "p")
    for call in (peer.load(MODEL, DIGEST, 1.0), peer.hold(holder, MODEL, DIGEST, 60), peer.release(holder, MODEL)):
        with pytest.raises(PeerUnavailableError, match="party 'shop': unreachable"):
            await call
    await link.close()
