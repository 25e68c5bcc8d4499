"""The connection machine against polite, clumsy and hostile peers; no sockets, a clock that is ticked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.transport import frames
from serving.transport.call import Head
from serving.transport.connection import Connection
from serving.transport.frames import ErrorCode, FrameReader, Setting
from serving.transport.hpack import encode
from serving.transport.streams import ConnectionLimits
from tests.unit.serving.transport.test_frames import HOW_LONG

REQUEST = encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b"te", b"trailers")))
HELLO = frames.PREFACE + frames.settings({})


class Sink:
    """Both what is above a connection and the owner of its streams: records what it is told."""

    def __init__(self):
        self.streams, self.data, self.resets, self.heads, self.wakes = [], [], [], [], 0
        self.went_away = self.too_large = self.drained = 0

    def wake(self):
        self.wakes += 1

    def opened(self, stream, head, end, payload):
        stream.owner = self
        self.streams.append(stream)
        if payload:
            self.data.append((payload, end))

    def head_too_large(self, stream):
        self.too_large += 1

    def going_away(self):
        self.went_away += 1

    def received_head(self, head, end):
        self.heads.append((head, end))

    def received_data(self, payload, end):
        self.data.append((payload, end))

    def writable(self):
        self.drained += 1

    def closed(self, code):
        self.resets.append(code)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def connection(client=False, **limits):
    sink, clock = Sink(), Clock()
    made = Connection(sink, Head, ConnectionLimits(**limits), clock, client)
    sink.clock = clock
    return made, sink


def greeted(client=False, **limits):
    made, sink = connection(client, **limits)
    made.receive(frames.settings({}) if client else HELLO)
    made.take_output()
    return made, sink


def output(made):
    sent = made.take_output().removeprefix(frames.PREFACE)
    return FrameReader(frames.MAX_FRAME_BYTES, 1 << 20).feed(sent)


def fault(made):
    """The code of the GOAWAY this side sent."""
    last = output(made)[-1]
    assert (last[0], made.closed_reason is not None) == (frames.GOAWAY, True)
    return ErrorCode(frames.word(last[3], 4))


def request(stream_id, end=True, flags=frames.END_HEADERS):
    return frames.frame(frames.HEADERS, flags | (frames.END_STREAM if end else 0), stream_id, REQUEST)


def test_both_sides_greet_and_acknowledge():
    made, _ = connection()
    assert output(made)[0][0] == frames.SETTINGS
    made.receive(HELLO)
    assert output(made) == [(frames.SETTINGS, frames.ACK, 0, b"")]


def test_a_preface_may_come_a_byte_at_a_time():
    made, sink = connection()
    for byte in HELLO + request(1):
        made.receive(bytes((byte,)))
    assert len(sink.streams) == 1


@pytest.mark.parametrize("end", [True, False])
def test_a_request_opens_a_stream(end):
    made, sink = greeted()
    made.receive(request(1, end))
    assert (sink.streams[0].id, sink.streams[0].receiving) == (1, not end)


def data(stream_id, payload=b"x", flags=frames.END_STREAM):
    return frames.frame(frames.DATA, flags, stream_id, payload)


def heads(*numbers):
    return b"".join(request(number, end=False) for number in numbers)


def test_heads_that_come_before_the_data_of_many_calls_open_them_whole():
    made, sink = greeted()
    made.receive(heads(1, 3, 5) + data(3, b"3") + data(1, b"1") + data(5, b"5"))
    assert sink.data == [(b"3", True), (b"1", True), (b"5", True)]
    assert [(stream.id, stream.receiving) for stream in sink.streams] == [(3, False), (1, False), (5, False)]
    made.receive(heads(7) + heads(9))
    made.receive(data(9, b"9"))
    assert [stream.id for stream in sink.streams[3:]] == [7, 9]
    assert sink.data[-1] == (b"9", True)
    assert made.closed_reason is None


BETWEEN = {
    "a window": (frames.window_update(0, 5), None),
    "settings": (frames.settings({Setting.INITIAL_WINDOW_SIZE: 5}), None),
    "a reset": (frames.rst_stream(1, ErrorCode.CANCEL), ErrorCode.CANCEL),
    "a piece of data": (data(3, b"a", 0), None),
    "a padded piece": (data(3, b"\1a\0", frames.PADDED), None),
    "trailers": (request(3), None),
    "an unknown frame": (frames.frame(0xEE, 0, 0), None),
}


@pytest.mark.parametrize(("between", "reset"), BETWEEN.values(), ids=BETWEEN.keys())
def test_what_comes_between_heads_and_data_finds_the_calls_open(between, reset):
    made, sink = greeted()
    made.receive(heads(1, 3) + between)
    assert [stream.id for stream in sink.streams] == [1, 3]
    assert sink.resets == ([] if reset is None else [reset])
    assert made.closed_reason is None
    assert [stream.send_window for stream in sink.streams if between == BETWEEN["settings"][0]] in ([], [5, 5])


def test_heads_without_data_are_opened_at_the_end_of_the_read():
    made, sink = greeted()
    made.receive(heads(1, 3, 5))
    assert [(stream.id, stream.receiving) for stream in sink.streams] == [(1, True), (3, True), (5, True)]
    made.receive(data(5) + data(1))
    assert sink.data == [(b"x", True), (b"x", True)]


def test_heads_that_come_first_keep_to_the_limit_and_to_their_order():
    made, sink = greeted(max_streams=2)
    made.receive(heads(1, 3, 5, 7) + data(5) + data(3) + data(1) + data(7))
    assert [stream.id for stream in sink.streams] == [5, 3]
    assert [item[2] for item in output(made) if item[0] == frames.RST_STREAM] == [1, 7]


def test_a_head_that_is_too_large_costs_its_call_alone():
    made, sink = greeted(max_header_list_bytes=200)
    large = frames.headers(1, REQUEST + encode(((b"k", b"v" * 300),)), False)
    made.receive(large + heads(3) + data(3) + data(1))
    assert (sink.too_large, [stream.id for stream in sink.streams]) == (1, [3])


def test_early_heads_are_decoded_in_their_order():
    made, sink = greeted()
    kinds = []
    sink.opened = lambda stream, head, end, payload: kinds.append((stream.id, head.fields[-1]))
    insert, use = REQUEST + b"\x40\x01a\x01b", REQUEST + b"\xbe"
    made.receive(frames.headers(1, insert, False) + frames.headers(3, use, False) + data(3) + data(1))
    assert kinds == [(3, (b"a", b"b")), (1, (b"a", b"b"))]


def test_a_header_block_may_continue():
    made, sink = greeted()
    made.receive(frames.frame(frames.HEADERS, frames.END_STREAM, 1, REQUEST[:3]))
    made.receive(frames.frame(frames.CONTINUATION, 0, 1, REQUEST[3:5]))
    assert not sink.streams
    made.receive(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, REQUEST[5:]))
    assert len(sink.streams) == 1


def test_a_unary_reply_is_head_data_and_trailers():
    made, sink = greeted()
    made.receive(request(1))
    made.reply(sink.streams[0], b"head", b"message", b"last")
    sent = output(made)
    assert [item[0] for item in sent] == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert sent[-1][1] & frames.END_STREAM
    assert not made.streams


def test_data_waits_for_the_peers_windows_and_arrives_whole():
    made, sink = greeted()
    made.receive(request(1))
    payload = bytes(range(256)) * 1000
    made.reply(sink.streams[0], b"head", payload, b"last")
    received, sent = b"", output(made)
    while True:
        data = b"".join(item[3] for item in sent if item[0] == frames.DATA)
        received += data
        if sent[-1][0] == frames.HEADERS and sent[-1][1] & frames.END_STREAM:
            break
        assert data
        made.receive(frames.window_update(0, len(data)) + frames.window_update(1, len(data)))
        sent = output(made)
    assert received == payload
    assert (made.pending_bytes, made.streams) == (0, {})


def test_a_changed_initial_window_reaches_open_streams():
    made, sink = greeted()
    made.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}) + request(1))
    made.send_data(sink.streams[0], b"abc")
    assert not any(item[0] == frames.DATA for item in output(made))
    made.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 2}))
    assert [item[3] for item in output(made) if item[0] == frames.DATA] == [b"ab"]
    made.receive(frames.window_update(1, 10))
    assert [item[3] for item in output(made)] == [b"c"]
    assert sink.drained == 1


def test_windows_are_given_back_in_large_steps():
    made, sink = greeted(connection_window_bytes=65_535)
    made.receive(request(1, end=False))
    for _ in range(3):
        made.receive(frames.frame(frames.DATA, 0, 1, b"x" * 16_384))
        made.consumed(sink.streams[0], 16_384)
    assert [(item[0], item[2]) for item in output(made)] == [(frames.WINDOW_UPDATE, 0), (frames.WINDOW_UPDATE, 1)]


def test_a_drain_takes_streams_that_cross_it_until_the_peer_knows_and_keeps_old_ones():
    made, sink = greeted()
    made.receive(request(1))
    made.drain()
    first, ping = output(made)
    assert (first[0], frames.word(first[3])) == (frames.GOAWAY, frames.MAX_STREAM_ID)
    made.receive(request(3))  # sent before the peer had heard
    made.receive(frames.frame(frames.PING, frames.ACK, 0, ping[3]))
    made.receive(request(5))
    second, refusal = output(made)
    assert (second[0], frames.word(second[3])) == (frames.GOAWAY, 3)
    assert (refusal[0], refusal[2], frames.word(refusal[3])) == (frames.RST_STREAM, 5, ErrorCode.REFUSED_STREAM)
    assert [stream.id for stream in sink.streams] == [1, 3]
    made.reply(sink.streams[0], b"h", b"m", b"l")
    assert made.closed_reason is None


def test_another_ping_is_no_answer_to_the_announcement():
    made, _ = greeted()
    made.drain()
    made.receive(frames.frame(frames.PING, frames.ACK, 0, b"tessera\x00"))
    assert not made.draining


def test_a_goaway_ends_only_the_streams_the_server_never_saw():
    made, _ = greeted(client=True)
    first, second = Sink(), Sink()
    made.open(REQUEST, first)
    made.open(REQUEST, second)
    made.receive(frames.goaway(1, ErrorCode.NO_ERROR))
    assert (first.resets, second.resets, made.draining) == ([], [ErrorCode.REFUSED_STREAM], True)


def test_calls_that_never_left_are_refused_when_the_connection_is_lost():
    made, _ = greeted(client=True)
    left, stayed = Sink(), Sink()
    made.open(REQUEST, left)
    made.take_output()
    made.all_left()
    made.open(REQUEST, stayed)
    made.take_output()  # for a socket that was closed meanwhile
    made.lost("the peer closed the connection")
    assert (left.resets, stayed.resets) == ([ErrorCode.INTERNAL_ERROR], [ErrorCode.REFUSED_STREAM])


def test_a_reset_reaches_the_owner():
    made, sink = greeted()
    made.receive(request(1) + frames.rst_stream(1, ErrorCode.CANCEL))
    assert sink.resets == [ErrorCode.CANCEL]


def test_streams_beyond_the_limit_are_refused():
    made, sink = greeted(max_streams=2)
    made.receive(request(1) + request(3) + request(5))
    assert len(sink.streams) == 2
    assert [frames.word(item[3]) for item in output(made)] == [ErrorCode.REFUSED_STREAM]


def test_pings_are_answered_and_unknown_frames_ignored():
    made, _ = greeted()
    made.receive(frames.frame(0xEE, 0xFF, 7, b"?") + frames.frame(frames.PING, 0, 0, b"12345678"))
    assert output(made) == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_a_header_bomb_costs_its_call_alone():
    made, sink = greeted(max_header_list_bytes=1000)
    bomb = encode(((b"k", b"v" * 2000),))
    made.receive(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, bomb) + request(3))
    assert (sink.too_large, len(sink.streams), made.closed_reason) == (1, 1, None)


ONE = frames.END_HEADERS
BROKEN_RULES = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.PROTOCOL_ERROR),
    "no settings": (frames.PREFACE + request(1), ErrorCode.PROTOCOL_ERROR),
    "oversized frame": (HELLO + frames.header(20_000, frames.DATA, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "data on stream 0": (HELLO + frames.frame(frames.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (HELLO + frames.frame(frames.DATA, 0, 5, b"x"), ErrorCode.PROTOCOL_ERROR),
    "headers on stream 0": (HELLO + frames.frame(frames.HEADERS, ONE, 0, REQUEST), ErrorCode.PROTOCOL_ERROR),
    "an even stream": (HELLO + request(2), ErrorCode.PROTOCOL_ERROR),
    "a broken block": (HELLO + frames.frame(frames.HEADERS, ONE, 1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "an interrupted block": (HELLO + request(1, flags=0) + request(3), ErrorCode.PROTOCOL_ERROR),
    "a lone continuation": (HELLO + frames.frame(frames.CONTINUATION, 4, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "window of nothing": (HELLO + frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "window overflow": (HELLO + frames.window_update(0, frames.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "update on idle": (HELLO + frames.window_update(9, 1), ErrorCode.PROTOCOL_ERROR),
    "reset on idle": (HELLO + frames.rst_stream(9, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
    "a short reset": (HELLO + request(1) + frames.frame(frames.RST_STREAM, 0, 1, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "a short ping": (HELLO + frames.frame(frames.PING, 0, 0, b"1"), ErrorCode.FRAME_SIZE_ERROR),
    "a ping on a stream": (HELLO + frames.frame(frames.PING, 0, 1, b"12345678"), ErrorCode.PROTOCOL_ERROR),
    "settings on a stream": (HELLO + frames.frame(frames.SETTINGS, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "a long acknowledgement": (HELLO + frames.frame(frames.SETTINGS, 1, 0, b"123456"), ErrorCode.FRAME_SIZE_ERROR),
    "odd settings": (HELLO + frames.frame(frames.SETTINGS, 0, 0, b"12345"), ErrorCode.FRAME_SIZE_ERROR),
    "a huge window": (HELLO + frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
    "a tiny frame limit": (HELLO + frames.settings({Setting.MAX_FRAME_SIZE: 5}), ErrorCode.PROTOCOL_ERROR),
    "a push": (HELLO + frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), ErrorCode.PROTOCOL_ERROR),
    "rapid resets": (
        HELLO + b"".join(request(n) + frames.rst_stream(n, ErrorCode.CANCEL) for n in range(1, 5000, 2)),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a ping flood": (HELLO + frames.frame(frames.PING, 0, 0, b"12345678") * 2500, ErrorCode.ENHANCE_YOUR_CALM),
    "a settings flood": (HELLO + frames.settings({}) * 2500, ErrorCode.ENHANCE_YOUR_CALM),
    "a flood of long settings": (
        HELLO + frames.frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\1" * 2600) * 20,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "an empty data flood": (
        HELLO + request(1, end=False) + frames.frame(frames.DATA, 0, 1) * 2500,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a continuation flood": (
        HELLO + request(1, flags=0) + frames.frame(frames.CONTINUATION, 0, 1, b"") * 100,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "an endless block": (
        HELLO + request(1, flags=0) + frames.frame(frames.CONTINUATION, 0, 1, b"\x00" * 16_000) * 8,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize(("sent", "code"), BROKEN_RULES.values(), ids=BROKEN_RULES.keys())
def test_a_peer_that_breaks_the_rules_of_the_connection_gets_a_goaway(sent, code):
    made, _ = connection()
    made.receive(sent)
    while made.more:
        made.receive(b"")
    assert fault(made) is code
    made.receive(request(99))
    assert made.take_output() == b""


def test_many_frames_are_taken_in_portions():
    made, sink = greeted()
    made.receive(b"".join(request(number) for number in range(1, 2 * frames.MOST_FRAMES + 20, 2)))
    assert made.more
    assert len(sink.streams) == frames.MOST_FRAMES
    made.receive(b"")
    assert not made.more
    assert len(sink.streams) == frames.MOST_FRAMES + 10


STREAM_FAULTS = {
    "data beyond the window": (frames.frame(frames.DATA, 0, 1, b"x" * 101), ErrorCode.FLOW_CONTROL_ERROR),
    "an update of nothing": (frames.window_update(1, 0), ErrorCode.PROTOCOL_ERROR),
    "an overflowing update": (frames.window_update(1, frames.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "unfinished trailers": (request(1, end=False), ErrorCode.PROTOCOL_ERROR),
    "a short priority": (frames.frame(frames.PRIORITY, 0, 1, b"1"), ErrorCode.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize(("sent", "code"), STREAM_FAULTS.values(), ids=STREAM_FAULTS.keys())
def test_a_broken_stream_is_reset_alone(sent, code):
    made, sink = greeted(window_bytes=100)
    made.receive(request(1, end=False) + sent + request(3))
    assert [frames.word(item[3]) for item in output(made) if item[0] == frames.RST_STREAM] == [code]
    assert (sink.resets, made.closed_reason, list(made.streams)) == ([code], None, [3])


def test_data_after_the_end_of_a_stream_resets_it():
    made, sink = greeted()
    made.receive(request(1) + frames.frame(frames.DATA, 0, 1, b"x"))
    assert sink.resets == [ErrorCode.STREAM_CLOSED]


def test_time_restores_patience():
    made, sink = greeted()
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    for _ in range(10):
        made.receive(ping * 1000)
        sink.clock.now += 3
    assert made.closed_reason is None


KINDS = st.one_of(st.integers(0, 9), st.integers(0, 255))
FRAMES = st.builds(
    frames.frame,
    KINDS,
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 7, frames.MAX_STREAM_ID]),
    st.one_of(st.binary(max_size=40), st.just(REQUEST), st.just(b"\0\0\0\1"), st.just(b"\x7f\xff\xff\xff")),
)


@HOW_LONG
def test_no_frames_raise_anything_and_the_books_balance(how):
    said = st.lists(st.one_of(FRAMES, st.builds(request, st.sampled_from([1, 3, 5]))), max_size=30)

    @settings(how)
    @given(st.booleans(), said, st.data())
    def heard(client, received, data):
        made, _ = greeted(client)
        for item in received:
            made.receive(item)
            for stream in list(made.streams.values()):
                if stream.sending and data.draw(st.booleans()):
                    made.send_data(stream, b"x" * data.draw(st.sampled_from([1, 40_000])))
        waiting = sum(len(stream.pending) for stream in made.streams.values() if stream.pending is not None)
        assert made.pending_bytes == waiting
        if made.closed_reason is not None:
            assert not made.streams

    heard()


@HOW_LONG
def test_no_bytes_raise_anything(how):
    @settings(how)
    @given(st.booleans(), st.lists(st.binary(max_size=60), max_size=10))
    def heard(client, chunks):
        made, sink = greeted(client)
        if client:
            made.open(REQUEST, sink)
        for chunk in chunks:
            made.receive(chunk)

    heard()


def test_the_end_of_a_stream_leaves_though_its_window_is_negative():
    made, _ = greeted(client=True)
    stream = made.open(REQUEST, Sink())
    made.send_data(stream, b"x" * 10)
    made.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 5}))
    made.take_output()
    made.send_data(stream, b"", end=True)
    assert output(made) == [(frames.DATA, frames.END_STREAM, 1, b"")]


def test_what_comes_late_for_a_stream_that_this_side_reset_is_no_fault():
    made, sink = greeted(max_streams=2)
    late = frames.frame(frames.DATA, 0, 1, b"x") + frames.frame(frames.HEADERS, ONE | 1, 1, REQUEST)
    for number in (1, 3, 5):
        made.receive(request(number, end=False))
        made.reset(sink.streams[-1], ErrorCode.CANCEL)
        made.take_output()
        if number == 1:
            made.receive(late)
            assert output(made) == []
    made.receive(request(1))  # a peer cannot have opened so many streams without having heard of the reset
    assert fault(made) is ErrorCode.STREAM_CLOSED


def test_a_client_bears_whatever_comes_late():
    made, _ = greeted(client=True)
    made.reset(made.open(REQUEST, Sink()), ErrorCode.CANCEL)
    made.take_output()
    made.receive(request(1, end=False) + frames.frame(frames.DATA, frames.END_STREAM, 1, b"x"))
    assert (output(made), made.closed_reason) == ([], None)


def test_a_server_may_not_allow_itself_to_push():
    made, _ = connection(client=True)
    made.receive(frames.settings({Setting.ENABLE_PUSH: 1}))
    assert fault(made) is ErrorCode.PROTOCOL_ERROR


def test_a_promise_of_content_is_kept():
    made, sink = greeted()
    for number, sizes in ((1, (3, 4)), (3, (3, 3)), (5, (8,))):
        made.receive(request(number, end=False))
        sink.streams[-1].owed = 7
        for size in sizes[:-1]:
            made.receive(frames.frame(frames.DATA, 0, number, b"x" * size))
        made.receive(frames.frame(frames.DATA, frames.END_STREAM, number, b"x" * sizes[-1]))
    assert sink.resets == [ErrorCode.PROTOCOL_ERROR] * 2
    assert list(made.streams) == [1]


def test_more_content_than_was_promised_is_refused_before_its_end():
    made, sink = greeted()
    made.receive(request(1, end=False))
    sink.streams[0].owed = 7
    made.receive(frames.frame(frames.DATA, 0, 1, b"x" * 7))
    assert not sink.resets
    made.receive(frames.frame(frames.DATA, 0, 1, b"x"))
    assert sink.resets == [ErrorCode.PROTOCOL_ERROR]


def test_the_rest_of_a_request_whose_response_is_whole_is_for_nobody():
    """Though the server does not say so: else the stream would stay as long as the connection."""
    made, sink = greeted(client=True)
    made.receive(frames.settings({Setting.INITIAL_WINDOW_SIZE: 10}))
    stream = made.open(REQUEST, sink)
    made.send_data(stream, b"x" * 20)
    made.take_output()
    made.receive(request(1, end=True))
    assert ([end for _, end in sink.heads], sink.resets) == ([True], [])
    assert (made.streams, made.pending_bytes) == ({}, 0)
    assert [frames.word(item[3]) for item in output(made) if item[0] == frames.RST_STREAM] == [ErrorCode.CANCEL]


def test_calls_that_are_answered_early_cost_a_client_no_patience():
    made, sink = greeted(client=True)
    for _ in range(5000):
        stream = made.open(REQUEST, sink)
        made.receive(request(stream.id, end=True) + frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
        made.take_output()
    assert made.closed_reason is None


WIDE = frames.settings({Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW}) + frames.window_update(0, 1 << 30)


def test_data_waits_while_the_socket_is_full_whatever_the_windows_allow():
    made, sink = greeted()
    made.receive(WIDE + request(1) + request(3))
    made.take_output()
    made.hold()
    made.reply(sink.streams[0], b"head", b"message", b"last")
    made.send_data(sink.streams[1], b"abc")
    assert [item[0] for item in output(made)] == [frames.HEADERS]
    assert made.pending_bytes == 10
    made.receive(frames.window_update(0, 1))
    assert output(made) == []
    made.resume()
    assert [item[3] for item in output(made)] == [b"message", b"last", b"abc"]
    assert (made.pending_bytes, list(made.streams), sink.drained) == (0, [3], 1)


def test_a_large_message_leaves_over_several_turns_of_the_loop():
    made, sink = greeted()
    made.receive(WIDE + request(1))
    made.take_output()
    made.send_data(sink.streams[0], b"x" * 2_500_000, end=True)
    turns = [made.take_output()]
    while made.cut_short:
        made.go_on()
        turns.append(made.take_output())
    assert len(turns) == 3
    assert all(len(turn) < 1_100_000 for turn in turns)
    assert sum(len(item[3]) for item in FrameReader(frames.MAX_FRAME_BYTES, 1 << 20).feed(b"".join(turns))) == 2_500_000
    assert not made.streams


def test_the_largest_reply_alone_does_not_make_a_peer_slow():
    made, sink = greeted()
    made.receive(request(1) + request(3) + request(5))
    for stream in sink.streams:
        made.send_data(stream, b"x" * 1_000_000)
    assert made.waits_for_more_than(1_500_000)
    assert not made.waits_for_more_than(2_000_000)


def test_a_shrunk_header_table_is_acknowledged_once_before_the_next_block():
    made, sink = greeted()
    made.receive(frames.settings({Setting.HEADER_TABLE_SIZE: 0, Setting.MAX_FRAME_SIZE: 20_000}))
    made.receive(request(1) + request(3))
    made.take_output()
    for stream in sink.streams:
        made.reply(stream, b"head", b"message", b"last")
    assert [item[3] for item in output(made)] == [b"\x20head", b"message", b"last", b"head", b"message", b"last"]
