"""gRPC on a stream: timeouts, metadata, messages, statuses."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.transport.call import (
    Head,
    MessageReader,
    encode_metadata,
    format_timeout,
    frame_message,
    parse_timeout,
    percent_encode,
    trailers,
)
from serving.transport.hpack import Decoder
from serving.transport.status import Code, RpcError

GOOD = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b"content-type", b"application/grpc"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"2H", 7200),
        (b"3M", 180),
        (b"4S", 4),
        (b"5m", 0.005),
        (b"6u", 6e-6),
        (b"7n", 7e-9),
        (b"00000001", None),
        (b"123456789S", None),
        (b"S", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"1s", None),
    ],
)
def test_timeouts_of_all_units(text, seconds):
    assert parse_timeout(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.floats(0, 1e9))
def test_a_timeout_survives_the_wire_and_never_shrinks(seconds):
    text = format_timeout(seconds)
    assert len(text) <= 9
    parsed = parse_timeout(text)
    assert seconds - 1e-6 <= parsed <= seconds * 1.02 + 1e-3


CLOSE = {0.0123451: b"12346u", 0.0999: b"99900u", 0.1: b"100m", 0.99831: b"999m", 2.0: b"2000m"}


@pytest.mark.parametrize(("seconds", "text"), CLOSE.items())
def test_what_follows_each_other_closely_is_often_the_same(seconds, text):
    assert format_timeout(seconds) == text


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 30))
def test_messages_are_read_however_they_are_cut(messages, step):
    stream = b"".join(map(frame_message, messages))
    reader = MessageReader(1000, b"identity")
    read = [item for start in range(0, len(stream), step) for item in reader.feed(stream[start : start + step])]
    assert (read, reader.unfinished) == (messages, 0)


def test_gzip_is_left_as_it_is():
    packed = gzip.compress(b"hello" * 100)
    (read,) = MessageReader(1000, b"gzip").feed(b"\x01" + len(packed).to_bytes(4, "big") + packed)
    assert (read.message, read.size, read.inflated()) == (packed, 500, b"hello" * 100)


@pytest.mark.parametrize(
    ("payload", "encoding", "code"),
    [
        (frame_message(b"x" * 101), b"identity", Code.RESOURCE_EXHAUSTED),
        (b"\x01\x00\x00\x00\x01x", b"identity", Code.INTERNAL),
        (b"\x01\x00\x00\x00\x01x", b"gzip", Code.INTERNAL),
        (b"\x02\x00\x00\x00\x01x", b"gzip", Code.INTERNAL),
        (b"\x01\x00\x00\x00\x0a" + gzip.compress(b"x", mtime=0)[:10], b"gzip", Code.INTERNAL),
    ],
)
def test_bad_messages_have_a_status(payload, encoding, code):
    with pytest.raises(RpcError) as caught:
        MessageReader(100, encoding).feed(payload)
    assert caught.value.code is code


def test_a_gzip_bomb_is_not_inflated():
    bomb = gzip.compress(b"\0" * 5_000_000)
    with pytest.raises(RpcError) as caught:
        MessageReader(10_000, b"gzip").feed(b"\x01" + len(bomb).to_bytes(4, "big") + bomb)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@given(st.text(max_size=60))
def test_details_survive_the_wire(text):
    block = trailers(Code.ABORTED, text, ())
    error = Head(Decoder(tuple).decode(block)).status()
    assert (error.code, error.details) == (Code.ABORTED, text.encode(errors="replace").decode())


def test_percent_encoding_keeps_what_is_printable():
    assert percent_encode("a b%\n✓") == b"a b%25%0A%E2%9C%93"


@given(st.binary(max_size=40))
def test_binary_metadata_survives(value):
    assert Head(tuple(encode_metadata((("k-bin", value),)))).metadata() == (("k-bin", value),)


@pytest.mark.parametrize("metadata", [("UPPER", "x"), ("k", "línea"), ("k", "a\nb"), ("", "x"), (":path", "x")])
def test_metadata_that_cannot_be_sent_is_named(metadata):
    with pytest.raises(ValueError, match=r"metadata"):
        encode_metadata((metadata,))


def test_binary_metadata_that_is_not_base64_is_left_out():
    assert Head(((b"k-bin", b"!"), (b"j", b"1"))).metadata() == (("j", "1"),)


def test_calls_that_differ_in_values_alone_keep_their_own():
    heads = [Head((*GOOD, (b"grpc-timeout", b"%dS" % n), (b"k", b"%d" % n))) for n in (1, 2)]
    assert [(head.timeout_s, head.metadata()) for head in heads] == [(1, (("k", "1"),)), (2, (("k", "2"),))]
    assert Head((*GOOD, (b"grpc-timeout", b"soon"))).problem.code is Code.INTERNAL
    assert Head((*GOOD, (b"grpc-encoding", b"br"))).problem.code is Code.UNIMPLEMENTED
    assert heads[0].problem is None


@pytest.mark.parametrize(
    "fields",
    [
        GOOD[1:],
        (*GOOD, (b":path", b"/late")),
        (GOOD[0], *GOOD),
        (*GOOD, (b"Upper", b"x")),
        (*GOOD, (b"connection", b"close")),
        (*GOOD, (b"te", b"gzip")),
        (*GOOD, (b"a b", b"x")),
        (*GOOD, (b"k", b"a\nb")),
        (*GOOD, (b"k", b"a\0b")),
        (*GOOD, (b"content-length", b"-1")),
        ((b":unknown", b"x"), *GOOD),
        ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"")),
    ],
)
def test_malformed_heads_are_told(fields):
    assert Head(fields).malformed or Head(fields).shape.malformed_request
    assert not (Head(GOOD).malformed or Head(GOOD).shape.malformed_request)


@pytest.mark.parametrize(
    ("field", "code"),
    [((b"grpc-encoding", b"br"), Code.UNIMPLEMENTED), ((b"grpc-timeout", b"soon"), Code.INTERNAL)],
)
def test_requests_that_cannot_be_served_have_a_problem(field, code):
    assert Head((*GOOD, field)).problem.code is code


@pytest.mark.parametrize("status", [b"", b"17", b"x", b"999"])
def test_a_status_that_is_none_is_unknown(status):
    assert Head(((b"grpc-status", status),)).status().code is Code.UNKNOWN


def test_each_call_that_ends_with_the_same_head_has_an_error_of_its_own():
    head = Head(Decoder(tuple).decode(trailers(Code.RESOURCE_EXHAUSTED, "full", (("retry", "50"),))))
    first, second = head.status(), head.status()
    assert first is not second
    assert (first.code, first.details, tuple(first.trailing_metadata)) == (
        second.code,
        second.details,
        tuple(second.trailing_metadata),
    )
