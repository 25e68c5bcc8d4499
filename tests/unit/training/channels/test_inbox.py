"""The inbox alone: order, duplicates, attempts, memory and credit."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.channel import CHUNK_BYTES, ChannelError, IntegrityError, Tag
from training.channels.chunk import Chunk, split
from training.channels.inbox import CHUNK_OVERHEAD_BYTES, HUNGRY_CHUNKS, Inbox, InboxLimits

FULL = CHUNK_BYTES + CHUNK_OVERHEAD_BYTES
LIMITS = InboxLimits(buffer_bytes=4 * FULL, max_bytes=64 * CHUNK_BYTES)


def tag(name: str = "x", number: int = 0, attempt: int = 1) -> Tag:
    return Tag("job", "task", attempt, name, number)


class Feed:
    """An inbox and the next position of its stream."""

    def __init__(self, limits: InboxLimits = LIMITS) -> None:
        self.inbox = Inbox(limits)

    def message(self, address: Tag, payload: bytes) -> list[Tag]:
        news = []
        for chunk in split(address, payload, self.inbox.next_position):
            self.inbox.grant()
            news += self.inbox.accept(chunk)
        return news

    def bulk(self, number: int) -> list[Tag]:
        return self.message(tag("bulk", number), bytes(CHUNK_BYTES))

    def free(self) -> int:
        return self.inbox.grant() - self.inbox.next_position


def test_a_message_is_taken_once_it_is_complete() -> None:
    feed = Feed()
    payload = bytes(range(256)) * 8192
    feed.inbox.expect(tag())
    first, second = split(tag(), payload, 0)
    feed.inbox.grant()
    assert feed.inbox.accept(first) == []
    assert feed.inbox.take(tag()) is None
    assert feed.inbox.accept(second) == [tag()]
    assert feed.inbox.take(tag()) == payload
    feed.inbox.dismiss(tag())
    assert feed.inbox.held_bytes == 0


def test_chunks_sent_again_are_dropped() -> None:
    feed = Feed()
    chunks = list(split(tag(), bytes(3 * CHUNK_BYTES), 0))
    feed.inbox.grant()
    for chunk in [chunks[0], chunks[0], chunks[1], chunks[0], chunks[1], chunks[2], *chunks]:
        feed.inbox.accept(chunk)
    feed.inbox.expect(tag())
    assert feed.inbox.take(tag()) == bytes(3 * CHUNK_BYTES)
    assert feed.inbox.next_position == 3


def test_a_chunk_that_comes_twice_in_one_message_is_dropped() -> None:
    feed = Feed()
    first, second = split(tag(), bytes(CHUNK_BYTES) + b"end", 0)
    again = Chunk(1, first.tag, first.seq, first.last, first.sha256, first.payload)
    later = Chunk(2, second.tag, second.seq, second.last, second.sha256, second.payload)
    feed.inbox.grant()
    for chunk in (first, again, later):
        feed.inbox.accept(chunk)
    feed.inbox.expect(tag())
    assert feed.inbox.take(tag()) == bytes(CHUNK_BYTES) + b"end"


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        (Chunk(1, tag(), 0, True, b"", b""), "position 1 came where 0 was due"),
        (Chunk(0, tag(), 1, True, b"", b""), r"chunk 1 of job/task#1/x\[0\] came where 0 was due"),
        (Chunk(0, tag(), 0, False, b"", bytes(CHUNK_BYTES + 1)), "1048577 bytes, at most 1048576"),
    ],
)
def test_a_stream_that_cannot_be_right(chunk, text) -> None:
    feed = Feed()
    feed.inbox.grant()
    with pytest.raises(IntegrityError, match=text):
        feed.inbox.accept(chunk)


def test_sending_without_credit_is_an_error() -> None:
    feed = Feed()
    for number in range(feed.inbox.grant()):
        feed.inbox.accept(next(split(tag("bulk", number), bytes(CHUNK_BYTES), number)))
    with pytest.raises(IntegrityError, match="without credit, which ends at 4"):
        feed.inbox.accept(next(split(tag(), b"", 4)))


def test_a_wrong_digest_is_told_to_the_receiver() -> None:
    feed = Feed()
    feed.inbox.expect(tag())
    feed.inbox.grant()
    feed.inbox.accept(Chunk(0, tag(), 0, True, hashlib.sha256(b"other").digest(), b"this"))
    with pytest.raises(IntegrityError, match="does not have the SHA-256"):
        feed.inbox.take(tag())
    assert feed.inbox.held_bytes == 0


def test_credit_ends_with_the_buffer_and_comes_back_by_taking() -> None:
    feed = Feed()
    assert feed.free() == 4
    for left in (3, 2, 1, 0):
        feed.bulk(4 - left - 1)
        assert feed.free() == left
    feed.inbox.expect(tag("bulk", 2))
    assert len(feed.inbox.take(tag("bulk", 2))) == CHUNK_BYTES
    feed.inbox.dismiss(tag("bulk", 2))
    assert feed.free() == 1


def test_small_messages_use_little_credit_but_some() -> None:
    feed = Feed()
    for number in range(1000):
        feed.message(tag("small", number), b"")
    assert feed.free() == 3


def test_a_receiver_that_waits_always_gets_credit() -> None:
    feed = Feed()
    for number in range(4):
        feed.bulk(number)
    assert feed.free() == 0
    feed.inbox.expect(tag("late"))
    assert feed.free() == HUNGRY_CHUNKS
    for number in range(4, 30):
        feed.bulk(number)
        assert feed.free() == HUNGRY_CHUNKS
    assert feed.message(tag("late"), b"at last") == [tag("late")]
    assert feed.inbox.take(tag("late")) == b"at last"


def test_credit_given_to_a_receiver_that_went_away_is_not_renewed() -> None:
    feed = Feed()
    for number in range(4):
        feed.bulk(number)
    feed.inbox.expect(tag("late"))
    granted = feed.inbox.grant()
    feed.inbox.dismiss(tag("late"))
    assert feed.inbox.grant() == granted
    feed.bulk(4)
    assert feed.inbox.grant() == granted


def test_an_awaited_message_longer_than_the_buffer_does_not_count_against_it() -> None:
    feed = Feed()
    feed.inbox.expect(tag())
    feed.message(tag(), bytes(20 * CHUNK_BYTES))
    feed.bulk(0)
    assert len(feed.inbox.take(tag())) == 20 * CHUNK_BYTES
    feed.inbox.dismiss(tag())
    assert feed.inbox.held_bytes == FULL


def test_awaited_chunks_leave_the_credit_for_others_whole() -> None:
    feed = Feed(InboxLimits(buffer_bytes=40 * FULL))
    feed.inbox.expect(tag())
    chunks = list(split(tag(), bytes(50 * CHUNK_BYTES), 0))
    for chunk in chunks:
        assert feed.free() == 40
        feed.inbox.accept(chunk)
    feed.inbox.take(tag())
    feed.inbox.dismiss(tag())
    assert feed.free() == 40


def test_a_half_arrived_message_counts_again_when_its_receiver_leaves() -> None:
    feed = Feed()
    feed.inbox.expect(tag())
    for chunk in list(split(tag(), bytes(20 * CHUNK_BYTES), 0))[:10]:
        feed.inbox.grant()
        feed.inbox.accept(chunk)
    granted = feed.inbox.grant()
    feed.inbox.dismiss(tag())
    assert feed.inbox.grant() == granted


def test_past_the_maximum_the_receivers_fail_instead_of_the_memory() -> None:
    feed = Feed(InboxLimits(buffer_bytes=4 * FULL, max_bytes=8 * FULL))
    feed.inbox.expect(tag("late"))
    news = [found for number in range(9) for found in feed.bulk(number)]
    assert news == [tag("late")]
    with pytest.raises(ChannelError, match=r"late\[0\] cannot be received: more than .* receive in the order sent"):
        feed.inbox.take(tag("late"))
    granted = feed.inbox.grant()
    feed.bulk(9)
    assert feed.inbox.grant() == granted


def test_a_newer_attempt_drops_what_the_older_left() -> None:
    feed = Feed()
    feed.inbox.expect(tag("waiting"))
    feed.bulk(0)
    assert feed.message(tag("x", attempt=2), b"new") == [tag("waiting")]
    with pytest.raises(ChannelError, match="attempt 2 of this task has begun"):
        feed.inbox.take(tag("waiting"))
    assert feed.message(tag("x", attempt=1), bytes(CHUNK_BYTES)) == []
    assert feed.inbox.held_bytes == 3 + CHUNK_OVERHEAD_BYTES


def test_a_newer_attempt_may_send_again_what_the_older_sent() -> None:
    feed = Feed()
    for attempt in (1, 2):
        feed.message(tag(attempt=attempt), b"%d" % attempt)
        feed.inbox.expect(tag(attempt=attempt))
        assert feed.inbox.take(tag(attempt=attempt)) == b"%d" % attempt
        feed.inbox.dismiss(tag(attempt=attempt))


def test_an_attempt_of_one_task_leaves_others_alone() -> None:
    feed = Feed()
    other = Tag("job", "other", 1, "x", 0)
    feed.message(other, b"kept")
    feed.message(tag(attempt=2), b"new")
    feed.inbox.expect(other)
    assert feed.inbox.take(other) == b"kept"


def test_receivers_that_come_in_vain_are_told_at_once() -> None:
    feed = Feed()
    feed.message(tag(), b"x")
    feed.inbox.expect(tag())
    with pytest.raises(ChannelError, match="is being received already"):
        feed.inbox.expect(tag())
    feed.inbox.take(tag())
    feed.inbox.dismiss(tag())
    with pytest.raises(ChannelError, match="was received before"):
        feed.inbox.expect(tag())


@pytest.mark.parametrize(("buffer_bytes", "max_bytes"), [(CHUNK_BYTES - 1, 1 << 30), (1 << 30, 1 << 29)])
def test_limits_are_checked(buffer_bytes, max_bytes) -> None:
    with pytest.raises(ValueError, match="buffer_bytes"):
        InboxLimits(buffer_bytes, max_bytes)


@given(st.data())
def test_everything_arrives_in_any_order_of_receiving(data) -> None:
    """A sender that uses all credit it gets, and receivers in a random order, two at once."""
    sizes = data.draw(st.lists(st.sampled_from([0, 10, CHUNK_BYTES, 3 * CHUNK_BYTES]), min_size=1, max_size=12))
    wanted = data.draw(st.permutations(range(len(sizes))))
    feed, position = Feed(), 0
    stream = [chunk for number, size in enumerate(sizes) for chunk in split(tag("m", number), bytes(size), 0)]
    waiting: list[int] = []
    while wanted or waiting:
        while wanted and len(waiting) < 2:
            waiting.append(wanted.pop(0))
            feed.inbox.expect(tag("m", waiting[-1]))
        while position < min(len(stream), feed.inbox.grant()):
            chunk = stream[position]
            feed.inbox.accept(Chunk(position, chunk.tag, chunk.seq, chunk.last, chunk.sha256, chunk.payload))
            position += 1
        ready = [number for number in waiting if feed.inbox.take(tag("m", number)) is not None]
        assert ready, "somebody waits and nothing comes: a deadlock"
        for number in ready:
            waiting.remove(number)
            feed.inbox.dismiss(tag("m", number))
    assert position == len(stream)
    assert feed.inbox.held_bytes == 0
