"""A client's and a server's machine, joined back to back: whatever either does in whatever order, and however the bytes
are cut, both agree on what was said."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving.transport import frames
from serving.transport.call import Head
from serving.transport.connection import Connection
from serving.transport.frames import ErrorCode, Setting
from serving.transport.hpack import encode
from serving.transport.streams import ConnectionLimits

REQUEST = encode(
    ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b"te", b"trailers"), (b"grpc-timeout", b"1S"))
)
RESPONSE = encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
TRAILERS = encode(((b"grpc-status", b"0"),))
LIMITS = ConnectionLimits(max_streams=4, window_bytes=3_000, connection_window_bytes=70_000)


class Side:
    """An end of the connection and the owner of its streams: what was sent and received, by stream."""

    def __init__(self, client: bool) -> None:
        self.connection = Connection(self, Head, LIMITS, lambda: 0.0, client)
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.received: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.finished: set[int] = set()
        self.gone: set[int] = set()
        self.open: dict[int, object] = {}
        self.wire = b""

    def owner(self, stream):
        return Owner(self, stream)

    def wake(self):
        pass

    def opened(self, stream, head, end, payload):
        assert head.shape.path == "/a/b"
        stream.owner = self.owner(stream)
        self.open[stream.id] = stream
        if payload or end:
            stream.owner.received_data(payload, end)

    def answered(self, stream, head, payload, last):
        stream.owner.received_data(payload, False)
        stream.owner.received_head(last, True)

    def head_too_large(self, stream):
        raise AssertionError("no head was large")

    def going_away(self):
        pass

    def flush(self):
        self.wire += self.connection.take_output()


class Owner:
    def __init__(self, side, stream):
        self.side, self.stream = side, stream

    def received_head(self, head, end):
        if end:
            self.side.ended.add(self.stream.id)

    def received_data(self, payload, end):
        self.side.received[self.stream.id] += payload
        self.side.connection.consumed(self.stream, len(payload))
        if end:
            self.side.ended.add(self.stream.id)

    def writable(self):
        pass

    def closed(self, code):
        self.side.gone.add(self.stream.id)
        self.side.open.pop(self.stream.id, None)


class Pair(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.client, self.server = Side(client=True), Side(client=False)
        self.resets = set()

    @initialize()
    def greet(self):
        self.carry_all()

    def carry_all(self):
        """Until nobody has anything to say: a machine that always answers an answer would not end."""
        for _ in range(200):
            self.client.flush()
            self.server.flush()
            if not self.client.wire and not self.server.wire:
                return
            self.carry(self.client, self.server, len(self.client.wire))
            self.carry(self.server, self.client, len(self.server.wire))
        raise AssertionError("they never fall silent")

    def carry(self, source, target, count):
        cut, source.wire = source.wire[:count], source.wire[count:]
        target.connection.receive(cut)

    @rule(from_client=st.booleans(), count=st.integers(1, 5_000))
    def some_bytes_arrive(self, from_client, count):
        source, target = (self.client, self.server) if from_client else (self.server, self.client)
        source.flush()
        self.carry(source, target, count)

    @rule()
    def a_call_begins(self):
        connection = self.client.connection
        if len(connection.streams) < connection.peer_max_streams and not connection.draining:
            stream = connection.open(REQUEST, None)
            stream.owner = self.client.owner(stream)
            self.client.open[stream.id] = stream

    @rule(client=st.booleans(), place=st.integers(0, 3), payload=st.binary(max_size=6_000), end=st.booleans())
    def data_is_sent(self, client, place, payload, end):
        side = self.client if client else self.server
        streams = [item for item in side.open.values() if item.sending and item.id not in side.finished]
        if not streams:
            return
        stream = streams[place % len(streams)]
        if not client and not side.sent[stream.id] and stream.id not in side.ended:
            side.connection.send_head(stream, RESPONSE)
        side.sent[stream.id] += payload
        if end:
            side.finished.add(stream.id)
        if client or not end:
            side.connection.send_data(stream, payload, end and client)
        else:
            side.connection.send_data(stream, payload)
            side.connection.send_last(stream, TRAILERS)

    @rule(client=st.booleans(), place=st.integers(0, 3))
    def a_stream_is_reset(self, client, place):
        side = self.client if client else self.server
        streams = list(side.open.values())
        if streams:
            stream = streams[place % len(streams)]
            self.resets.add(stream.id)
            side.connection.reset(stream, ErrorCode.CANCEL)
            side.open.pop(stream.id, None)

    @rule(client=st.booleans(), size=st.sampled_from([0, 1, 100, 65_535]))
    def the_window_changes(self, client, size):
        side = self.client if client else self.server
        side.connection.emit(frames.settings({Setting.INITIAL_WINDOW_SIZE: size}))

    @rule(client=st.booleans())
    def a_ping(self, client):
        (self.client if client else self.server).connection.ping()

    @rule()
    def everything_arrives(self):
        self.carry_all()
        for source, target in ((self.client, self.server), (self.server, self.client)):
            for number, payload in target.received.items():
                if number not in self.resets and number not in target.gone and number not in source.gone:
                    assert source.sent[number].startswith(payload)

    @invariant()
    def what_arrived_was_sent_in_order(self):
        for source, target in ((self.client, self.server), (self.server, self.client)):
            for number, payload in target.received.items():
                assert source.sent[number].startswith(payload)

    @invariant()
    def nobody_broke_a_rule(self):
        assert self.client.connection.closed_reason is None
        assert self.server.connection.closed_reason is None

    @invariant()
    def the_books_balance(self):
        for side in (self.client, self.server):
            connection = side.connection
            waiting = sum(len(one.pending) for one in connection.streams.values() if one.pending is not None)
            assert connection.pending_bytes == waiting
            assert len(connection.streams) <= LIMITS.max_streams

    def teardown(self):
        for side in (self.client, self.server):
            side.connection.emit(frames.settings({Setting.INITIAL_WINDOW_SIZE: 65_535}))
        self.carry_all()
        for side in (self.client, self.server):
            for stream in list(side.connection.streams.values()):
                side.connection.reset(stream, ErrorCode.CANCEL)
        self.carry_all()
        assert not self.client.connection.streams
        assert not self.server.connection.streams


QUICK = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=2_000, stateful_step_count=80)


class TestPair(Pair.TestCase):
    settings = QUICK


@pytest.mark.soak
@pytest.mark.timeout(1800)
class TestPairForLong(Pair.TestCase):
    settings = LONG
