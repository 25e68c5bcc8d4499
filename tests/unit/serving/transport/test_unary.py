"""A client's unary call on a connection whose server is a script; a clock that is ticked."""

import asyncio
import gzip

import pytest

from serving.transport import Code, RpcError, frames
from serving.transport.call import OK_TRAILERS, RESPONSE_HEAD, frame_message, trailers
from serving.transport.client_socket import ClientProtocol
from serving.transport.compression import GZIP_FIELD
from serving.transport.deadlines import Deadlines
from serving.transport.frames import ErrorCode, FrameReader
from serving.transport.hpack import encode
from serving.transport.unary import RefusedError, UnaryCall

BLOCK = encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b")))
BODY = bytes(range(256)) * 4


class Wire(asyncio.Transport):
    """Keeps what the client writes."""

    def __init__(self):
        super().__init__()
        self.written = bytearray()
        self.unsent, self.reads = 0, True

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return self.unsent

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True

    def is_closing(self):
        return False

    def close(self):
        pass

    abort = close


class TickedLoop:
    """Timers of which the test says when they go off; nothing else is asked of a loop here."""

    def __init__(self):
        self.now, self.timers = 0.0, []
        self.create_future = asyncio.get_running_loop().create_future
        self.call_soon = asyncio.get_running_loop().call_soon

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        timer = [self.now + delay, callback]
        self.timers.append(timer)
        return Cancellation(self.timers, timer)

    def tick(self, seconds):
        self.now += seconds
        for timer in [timer for timer in self.timers if timer[0] <= self.now]:
            self.timers.remove(timer)
            timer[1]()


class Cancellation:
    def __init__(self, timers, timer):
        self._timers, self._timer = timers, timer

    def cancel(self):
        if self._timer in self._timers:
            self._timers.remove(self._timer)


def connected(keepalive_s=1e6, **options):
    protocol, wire = ClientProtocol(keepalive_s, **options), Wire()
    protocol.loop = TickedLoop()
    protocol.deadlines = Deadlines(protocol.loop, protocol.connection.streams)
    protocol.connection_made(wire)
    protocol.data_received(frames.settings({}))
    return protocol, wire


def begun(protocol, deadline=None, max_bytes=1 << 20, body=b"hello"):
    call = UnaryCall(protocol, deadline, max_bytes)
    reply = call.begin(BLOCK, frame_message(body))
    protocol.flush()
    return call, reply


def response(stream_id, *messages, head=RESPONSE_HEAD, last=OK_TRAILERS, data_flags=0):
    data = b"".join(frames.frame(frames.DATA, data_flags, stream_id, message) for message in messages)
    return frames.headers(stream_id, head, False) + data + frames.headers(stream_id, last, True)


def written(protocol, wire):
    protocol.flush()
    sent = FrameReader(frames.MAX_FRAME_BYTES).feed(bytes(wire.written).removeprefix(frames.PREFACE))
    wire.written.clear()
    return sent


@pytest.mark.parametrize("step", [1, 7, 30, 1000, 5000])
async def test_a_reply_arrives_however_it_is_cut(step):
    protocol, _ = connected()
    replies = [begun(protocol)[1] for _ in range(3)]
    sent = b"".join(response(number, frame_message(BODY + b"%d" % number)) for number in (5, 1, 3))
    for start in range(0, len(sent), step):
        protocol.data_received(sent[start : start + step])
    assert [reply.result() for reply in replies] == [BODY + b"1", BODY + b"3", BODY + b"5"]
    assert not protocol.connection.streams


def long(size):
    return RESPONSE_HEAD + encode(((b"content-length", b"%d" % size),))


NOT_GRPC = encode(((b":status", b"503"), (b"content-type", b"text/html")))
WRONG = {
    "a status": (response(1, last=trailers(5, "no such thing", ())), Code.NOT_FOUND),
    "a status after a message": (response(1, frame_message(b"x"), last=trailers(5, "", ())), Code.NOT_FOUND),
    "no message": (response(1), Code.INTERNAL),
    "an empty piece of data": (response(1, b""), Code.INTERNAL),
    "two messages": (response(1, frame_message(b"x") * 2), Code.INTERNAL),
    "two messages apart": (response(1, frame_message(b"x"), frame_message(b"y")), Code.INTERNAL),
    "another length": (response(1, b"\x00\x00\x00\x00\x09short"), Code.INTERNAL),
    "too much": (response(1, frame_message(b"x" * 101)), Code.RESOURCE_EXHAUSTED),
    "an unknown compression": (response(1, b"\x01\x00\x00\x00\x01x"), Code.INTERNAL),
    "a web page": (response(1, frame_message(b"x"), head=NOT_GRPC), Code.UNAVAILABLE),
    "no status": (
        frames.headers(1, RESPONSE_HEAD, False) + frames.frame(frames.DATA, 1, 1, frame_message(b"x")),
        Code.INTERNAL,
    ),
    "a reset": (frames.rst_stream(1, ErrorCode.CANCEL), Code.CANCELLED),
    "a late refusal": (
        frames.headers(1, RESPONSE_HEAD, False) + frames.rst_stream(1, ErrorCode.REFUSED_STREAM),
        Code.UNAVAILABLE,
    ),
    "less than its length": (response(1, frame_message(b"x"), head=long(7)), Code.INTERNAL),
    "more than its length": (response(1, frame_message(b"x"), head=long(5)), Code.INTERNAL),
    "rubbish": (frames.frame(frames.DATA, 0, 0, b"x"), Code.UNAVAILABLE),
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_not_one_good_reply_has_a_status(sent, code):
    protocol, _ = connected()
    _, reply = begun(protocol, max_bytes=100)
    protocol.data_received(sent)
    with pytest.raises(RpcError) as caught:
        reply.result()
    assert caught.value.code is code
    assert not protocol.connection.streams


async def test_a_compressed_reply_is_inflated():
    protocol, _ = connected()
    _, reply = begun(protocol)
    packed = gzip.compress(BODY)
    message = b"\x01" + len(packed).to_bytes(4, "big") + packed
    protocol.data_received(response(1, message, head=RESPONSE_HEAD + GZIP_FIELD))
    assert reply.result() == BODY


async def test_an_informational_head_is_no_response():
    protocol, _ = connected()
    _, reply = begun(protocol)
    early = frames.headers(1, encode(((b":status", b"103"),)), False)
    protocol.data_received(early + response(1, frame_message(BODY)))
    assert reply.result() == BODY


async def test_informational_heads_without_end_wear_patience_out():
    protocol, _ = connected()
    _, reply = begun(protocol)
    early = frames.headers(1, encode(((b":status", b"103"),)), False)
    for _ in range(30):
        protocol.data_received(early * 100)
    with pytest.raises(RpcError, match="too many frames to no purpose"):
        reply.result()
    assert protocol.connection.closed_code is ErrorCode.ENHANCE_YOUR_CALM


MANY = frames.MOST_FRAMES + 100


def tiny_pieces():
    """A reply in so many pieces of a byte each."""
    body = bytes(MANY - 5)
    framed = frame_message(body)
    return body, response(1, *(framed[at : at + 1] for at in range(MANY)))


async def test_what_a_server_sends_is_taken_in_portions():
    """Of one turn of the loop: whatever else the loop serves has its turns in between."""
    protocol, wire = connected()
    _, reply = begun(protocol)
    body, sent = tiny_pieces()
    protocol.data_received(sent)
    assert (wire.reads, reply.done()) == (False, False)
    await asyncio.sleep(0)
    assert (wire.reads, reply.result()) == (True, body)


async def test_much_of_one_read_is_a_turn_too():
    protocol, wire = connected()
    _, reply = begun(protocol)
    protocol.data_received(
        response(1, *[frame_message(bytes(130_000))[at : at + 16_000] for at in range(0, 130_005, 16_000)])[:70_000]
    )
    assert not wire.reads
    await asyncio.sleep(0)
    assert wire.reads
    assert not reply.done()


async def test_an_answer_that_waits_for_its_turn_is_not_lost_with_the_connection():
    protocol, _ = connected()
    _, reply = begun(protocol)
    body, sent = tiny_pieces()
    protocol.data_received(sent)
    protocol.connection_lost(None)
    assert reply.result() == body
    await asyncio.sleep(0)


async def test_a_refused_call_may_be_sent_again():
    protocol, _ = connected()
    _, reply = begun(protocol)
    protocol.data_received(frames.rst_stream(1, ErrorCode.REFUSED_STREAM))
    with pytest.raises(RefusedError):
        reply.result()


async def test_a_request_larger_than_the_windows_is_sent_as_they_open():
    protocol, wire = connected()
    body = bytes(100_000)
    begun(protocol, body=body)
    sent = written(protocol, wire)
    protocol.data_received(frames.window_update(0, 1 << 20) + frames.window_update(1, 1 << 20))
    sent += written(protocol, wire)
    data = [item for item in sent if item[0] == frames.DATA]
    assert b"".join(item[3] for item in data) == frame_message(body)
    assert [item[1] for item in data if item[1]] == [frames.END_STREAM]


async def test_deadlines_end_calls_in_their_order_with_one_timer():
    protocol, wire = connected()
    calls = [begun(protocol, deadline)[1] for deadline in (5.0, 1.0, 3.0, None)]
    assert len(protocol.loop.timers) == 2  # the other one is for keepalive
    ended = []
    for _ in range(6):
        protocol.loop.tick(1.0)
        ended.append([call.done() for call in calls])
    assert [row.count(True) for row in ended] == [1, 1, 2, 2, 3, 3]
    assert [call.exception().code for call in calls[:3]] == [Code.DEADLINE_EXCEEDED] * 3
    resets = [item[2] for item in written(protocol, wire) if item[0] == frames.RST_STREAM]
    assert resets == [3, 5, 1]
    assert len(protocol.loop.timers) == 1


async def test_an_abandoned_call_is_reset_once_and_its_late_reply_ignored():
    protocol, wire = connected()
    call, reply = begun(protocol)
    reply.cancel()
    call.abandon(RpcError(Code.CANCELLED, "cancelled"))
    call.abandon(RpcError(Code.CANCELLED, "cancelled"))
    protocol.data_received(response(1, frame_message(BODY)))
    assert [item[2] for item in written(protocol, wire) if item[0] == frames.RST_STREAM] == [1]
    assert protocol.connection.closed_reason is None


async def test_a_reply_to_a_caller_who_just_left_ends_the_call():
    protocol, wire = connected()
    call, reply = begun(protocol)
    reply.cancel()
    protocol.data_received(response(1, frame_message(BODY)))
    call.abandon(RpcError(Code.CANCELLED, "cancelled"))
    assert not [item for item in written(protocol, wire) if item[0] == frames.RST_STREAM]
    assert not protocol.connection.streams


@pytest.mark.parametrize("step", [1, 1000])
async def test_a_reply_of_its_length_arrives(step):
    protocol, _ = connected()
    _, reply = begun(protocol)
    sent = response(1, frame_message(BODY), head=long(len(BODY) + 5))
    for start in range(0, len(sent), step):
        protocol.data_received(sent[start : start + step])
    assert reply.result() == BODY


SLOW = {
    "slow headers": frames.frame(frames.HEADERS, 0, 1, RESPONSE_HEAD) + frames.header(900, frames.CONTINUATION, 0, 1),
    "slow frame": frames.headers(1, RESPONSE_HEAD, False) + frames.header(900, frames.DATA, 0, 1),
}


@pytest.mark.parametrize(("reason", "sent"), SLOW.items(), ids=SLOW.keys())
async def test_a_server_that_sends_byte_by_byte_is_given_up_though_it_is_never_silent(reason, sent):
    protocol, _ = connected(keepalive_s=20.0)
    _, reply = begun(protocol)
    protocol.data_received(sent)
    for _ in range(10):
        protocol.loop.tick(10.0)
        protocol.data_received(b"x")
    with pytest.raises(RpcError, match=reason):
        reply.result()


async def test_a_server_that_is_slow_and_goes_on_is_waited_for():
    protocol, _ = connected(keepalive_s=20.0)
    _, reply = begun(protocol)
    sent = response(1, *[frame_message(BODY)[start : start + 60] for start in range(0, 1029, 60)])
    for start in range(0, len(sent), 10):
        protocol.loop.tick(5.0)
        protocol.data_received(sent[start : start + 10])
    assert reply.result() == BODY


async def test_a_server_that_talks_and_takes_nothing_is_given_up():
    """What it is owed for its talk would grow without bound."""
    protocol, wire = connected(keepalive_s=20.0)
    _, reply = begun(protocol)
    protocol.pause_writing()
    for second in range(0, 120, 10):
        wire.unsent = 100_000 + 17 * second
        protocol.data_received(frames.frame(frames.PING, 0, 0, b"12345678"))
        protocol.loop.tick(10.0)
    with pytest.raises(RpcError, match="stalled"):
        reply.result()


async def test_a_server_that_takes_little_is_borne():
    protocol, wire = connected(keepalive_s=20.0)
    _, reply = begun(protocol)
    protocol.pause_writing()
    for second in range(0, 600, 10):
        wire.unsent = 100_000 - second
        protocol.data_received(frames.frame(frames.PING, 0, 0, b"12345678"))
        protocol.loop.tick(10.0)
    protocol.resume_writing()
    protocol.data_received(response(1, frame_message(BODY)))
    assert reply.result() == BODY


async def pings_in_a_minute(protocol, wire):
    for _ in range(6):
        protocol.loop.tick(10.0)
    return len([item for item in written(protocol, wire) if item[0] == frames.PING])


async def test_a_silent_server_is_asked_while_a_call_runs_and_then_given_up():
    protocol, wire = connected(keepalive_s=20.0)
    assert await pings_in_a_minute(protocol, wire) == 0
    _, reply = begun(protocol)
    assert await pings_in_a_minute(protocol, wire) == 1
    with pytest.raises(RpcError, match="the peer does not answer"):
        reply.result()


async def test_a_server_that_answered_before_a_pause_is_asked_anew():
    protocol, wire = connected(keepalive_s=20.0)
    begun(protocol)
    protocol.loop.tick(20.0)
    protocol.data_received(response(1, frame_message(b"x")) + frames.frame(frames.PING, frames.ACK, 0, b"tessera\0"))
    assert await pings_in_a_minute(protocol, wire) == 1  # the one from before
    _, reply = begun(protocol)
    protocol.loop.tick(20.0)
    assert not reply.done()


async def test_a_channel_may_ask_without_calls():
    protocol, wire = connected(keepalive_s=20.0, keepalive_without_calls=True)
    assert await pings_in_a_minute(protocol, wire) == 1
