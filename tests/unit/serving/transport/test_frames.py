"""Frames survive any cut of the stream; malformed ones are connection errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.transport import frames
from serving.transport.frames import ConnectionFault, ErrorCode, FrameReader

BYTE = st.integers(0, 255)
HOW_LONG = pytest.mark.parametrize(
    "how",
    [
        settings(max_examples=200),
        pytest.param(settings(max_examples=20_000), marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
    ids=["quick", "long"],
)
FRAMES = st.tuples(BYTE, BYTE, st.integers(0, frames.MAX_STREAM_ID), st.binary(max_size=60))


@given(st.lists(FRAMES), st.integers(1, 40))
def test_frames_are_read_as_built_however_they_are_cut(built, step):
    reader, stream = FrameReader(), b"".join(frames.frame(*item) for item in built)
    read = [item for start in range(0, len(stream), step) for item in reader.feed(stream[start : start + step])]
    assert read == built


ALIKE = st.tuples(
    st.sampled_from([frames.DATA, frames.HEADERS]),
    BYTE,
    st.sampled_from([1, 3, (1 << 24) - 1, 1 << 24, frames.MAX_STREAM_ID]),
    st.sampled_from([b"", b"x" * 7, b"y" * 7, b"z" * 300]),
)


@given(st.lists(st.tuples(ALIKE, st.integers(1, 9)), max_size=12), st.integers(1, 3000), st.integers(1, 20))
def test_frames_that_are_alike_are_read_as_built_too(runs, step, most):
    built = [item for item, times in runs for _ in range(times)]
    stream, reader, read = b"".join(frames.frame(*item) for item in built), FrameReader(most_frames=most), []
    for start in range(0, len(stream), step):
        read += (cut := reader.feed(stream[start : start + step]))
        while len(cut) >= most:
            assert len(cut) < 2 * most
            read += (cut := reader.feed(b""))
    assert read == built


def test_the_reserved_bit_of_a_stream_is_ignored_in_frames_that_are_alike():
    stream = b"".join(frames.header(1, frames.DATA, 0, number | 1 << 31) + b"x" for number in (1, 3, 5, 7))
    assert [item[2] for item in FrameReader().feed(stream)] == [1, 3, 5, 7]


@HOW_LONG
def test_garbage_is_frames_or_a_connection_fault(how):
    @how
    @given(st.lists(st.one_of(st.binary(max_size=200), FRAMES.map(lambda item: frames.frame(*item))), max_size=6))
    def fed(pieces):
        reader = FrameReader(max_frame_bytes=10_000, most_frames=3)
        try:
            for piece in pieces:
                cut = reader.feed(piece)
                while len(cut) >= 3:
                    cut = reader.feed(b"")
        except ConnectionFault as fault:
            assert fault.code is ErrorCode.FRAME_SIZE_ERROR
        else:
            assert reader.bytes_taken + len(reader._rest) == sum(map(len, pieces))

    fed()


def test_a_frame_over_the_limit_is_refused_by_its_header_alone():
    with pytest.raises(ConnectionFault) as caught:
        FrameReader(max_frame_bytes=16_384).feed(frames.header(16_385, frames.DATA, 0, 1))
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR


@pytest.mark.parametrize("size", [0, 10, 16_384, 16_385, 50_000])
def test_long_blocks_continue(size):
    block = bytes(index % 251 for index in range(size))
    read = FrameReader().feed(frames.headers(3, block, end_stream=True))
    assert b"".join(item[3] for item in read) == block
    assert [item[0] for item in read] == [frames.HEADERS] + [frames.CONTINUATION] * (len(read) - 1)
    assert [bool(item[1] & frames.END_HEADERS) for item in read] == [False] * (len(read) - 1) + [True]
    assert read[0][1] & frames.END_STREAM


@pytest.mark.parametrize(
    ("kind", "flags", "payload", "expected"),
    [
        (frames.DATA, 0, b"abc", b"abc"),
        (frames.DATA, frames.PADDED, b"\x02abc\x00\x00", b"abc"),
        (frames.HEADERS, frames.PRIORITISED, b"\x00\x00\x00\x00\x10abc", b"abc"),
        (frames.HEADERS, frames.PRIORITISED | frames.PADDED, b"\x01\x00\x00\x00\x00\x10abc\x00", b"abc"),
    ],
)
def test_padding_and_priority_fields_are_taken_off(kind, flags, payload, expected):
    assert frames.unpadded(kind, flags, payload) == expected


@pytest.mark.parametrize("payload", [b"", b"\x05abc"])
def test_impossible_padding_is_a_fault(payload):
    with pytest.raises(ConnectionFault):
        frames.unpadded(frames.DATA, frames.PADDED, payload)


def test_settings_of_a_broken_length_are_a_fault():
    with pytest.raises(ConnectionFault):
        frames.parse_settings(b"12345")


def test_many_frames_come_in_portions():
    reader = FrameReader()
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    assert len(reader.feed(ping * (frames.MOST_FRAMES + 3) + ping[:5])) == frames.MOST_FRAMES
    assert len(reader.feed(b"")) == 3
    assert len(reader.feed(ping[5:])) == 1
