"""The servicer seen by a peer that does not keep to the rules, over a real connection."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from serving import transport
from tessera.v1 import training_pb2 as pb
from tessera.v1 import training_pb2_grpc as pb_grpc
from training.channel import CHUNK_BYTES, Tag
from training.channels import exchange as module
from training.channels import wire
from training.channels.chunk import Chunk, split
from training.channels.endpoint import Endpoint
from training.channels.exchange import Exchange, Seat
from training.channels.inbox import InboxLimits
from training.channels.meeting import Meeting

GUEST = Meeting("job", "guest", "host")
HOST = Meeting("job", "host", "guest")
TAG = Tag("job", "task", 1, "x", 0)


@pytest.fixture
async def party() -> AsyncIterator[SimpleNamespace]:
    exchange, server = Exchange("guest"), transport.server(transport.Transport.NATIVE)
    exchange.register(server)
    target = f"127.0.0.1:{server.add_port('127.0.0.1:0')}"
    await server.start()
    client = transport.channel(transport.Transport.NATIVE, target)
    seat = Seat(GUEST, "digest", Endpoint("host", InboxLimits()))
    exchange.take(seat)
    yield SimpleNamespace(exchange=exchange, stub=pb_grpc.PartyChannelStub(client.stub_channel), seat=seat)
    await client.close()
    await server.stop(0)


async def refusal(party, *envelopes) -> transport.RpcError:
    call = party.stub.Deliver()
    with pytest.raises(transport.RpcError) as caught:
        for envelope in envelopes:
            await call.write(envelope)
        while await call.read() is not None:
            pass
    return caught.value


async def test_the_first_acknowledgement_says_where_to_go_on(party) -> None:
    for position in (0, 1):
        call = party.stub.Deliver()
        await call.write(wire.hello(HOST))
        told = await call.read()
        assert told.next_position == position
        assert told.credit_until > position
        await call.write(wire.envelope(next(split(TAG, b"x", position)), "host"))
        assert (await call.read()).next_position == position + 1
        await call.done_writing()
        assert await call.read() is None


async def test_the_last_acknowledgement_covers_all_that_was_read(party) -> None:
    call = party.stub.Deliver()
    await call.write(wire.hello(HOST))
    for number in range(20):
        address = Tag("job", "task", 1, "x", number)
        await call.write(wire.envelope(next(split(address, b"x", number)), "host"))
    await call.done_writing()
    told = [acknowledgement.next_position async for acknowledgement in call]
    assert told[-1] == 20


async def test_every_hello_is_answered_even_without_news(party) -> None:
    call = party.stub.Deliver()
    await call.write(wire.hello(HOST))
    first = await call.read()
    for _ in range(3):
        await call.write(wire.hello(HOST))
        assert await call.read() == first


@pytest.mark.parametrize(
    "hello",
    [Meeting("other", "host", "guest"), Meeting("job", "stranger", "guest"), Meeting("job", "host", "guest", 2)],
    ids=["job", "party", "attempt"],
)
async def test_a_stream_for_a_channel_that_is_not_open(party, hello) -> None:
    error = await refusal(party, wire.hello(hello))
    assert error.code is transport.Code.NOT_FOUND
    assert "party guest has no channel to" in error.details


async def test_a_stream_that_ends_before_it_begins(party) -> None:
    call = party.stub.Deliver()
    await call.done_writing()
    assert await call.read() is None


@pytest.mark.parametrize(
    ("envelope", "text"),
    [
        (wire.envelope(Chunk(5, TAG, 0, True, b"", b""), "host"), "position 5 came where 0 was due"),
        (wire.envelope(Chunk(0, TAG, 3, True, b"", b""), "host"), "came where 0 was due"),
        (wire.envelope(Chunk(0, TAG, 0, False, b"", bytes(CHUNK_BYTES + 1)), "host"), "at most 1048576"),
        (wire.envelope(next(split(TAG, b"", 0)), "stranger"), "another job or party"),
        (pb.Envelope(job="other", party="host"), "another job or party"),
    ],
)
async def test_envelopes_that_cannot_be_right_end_the_stream(party, envelope, text) -> None:
    error = await refusal(party, wire.hello(HOST), envelope)
    assert error.code is transport.Code.INVALID_ARGUMENT
    assert text in error.details


async def test_a_second_stream_takes_over(party) -> None:
    first, second = party.stub.Deliver(), party.stub.Deliver()
    await first.write(wire.hello(HOST))
    await first.read()
    await second.write(wire.hello(HOST))
    await second.read()
    with pytest.raises(transport.RpcError, match="another stream of party host took over"):
        await first.read()
    await second.write(wire.envelope(next(split(TAG, b"x", 0)), "host"))
    assert (await second.read()).next_position == 1


async def test_an_old_attempt_is_refused_naming_both(party) -> None:
    with pytest.raises(transport.RpcError, match="runs attempt 1 of job job, not 0"):
        await party.stub.Meet(pb.MeetRequest(job="job", party="host", spec_digest="digest", attempt=0))


async def test_a_party_that_has_not_begun_says_so(party, monkeypatch) -> None:
    monkeypatch.setattr(module, "MEET_HOLD_S", 0.05)
    with pytest.raises(transport.RpcError, match="party guest has not begun job later") as caught:
        await party.stub.Meet(pb.MeetRequest(job="later", party="host", spec_digest="digest", attempt=1))
    assert caught.value.code is transport.Code.UNAVAILABLE


async def test_a_certificate_of_another_party_is_refused() -> None:
    context = SimpleNamespace(peer_identities=lambda: [b"mallory"])
    exchange = Exchange("guest")
    with pytest.raises(transport.RpcError, match="does not belong to party host") as caught:
        await exchange.Meet(pb.MeetRequest(job="job", party="host"), context)
    assert caught.value.code is transport.Code.PERMISSION_DENIED

    async def requests() -> AsyncIterator[pb.Envelope]:
        yield wire.hello(HOST)

    with pytest.raises(transport.RpcError, match="does not belong to party host"):
        await anext(exchange.Deliver(requests(), context))


def test_the_codec_keeps_every_field() -> None:
    chunk = Chunk(7, Tag("j", "t", 3, "n", 9), 5, True, b"d" * 32, b"payload")
    assert wire.chunk(wire.envelope(chunk, "host")) == chunk
