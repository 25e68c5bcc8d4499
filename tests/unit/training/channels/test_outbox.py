"""The outbox alone: credit, acknowledgement, sending again."""

import hashlib

import pytest

from training.channel import CHUNK_BYTES, ChannelError, IntegrityError, Tag
from training.channels.outbox import Outbox

TAG = Tag("job", "task", 1, "x", 0)


def drain(outbox: Outbox) -> list[int]:
    positions = []
    while (chunk := outbox.next_chunk()) is not None:
        positions.append(chunk.position)
    return positions


def filled(chunks: int, credit: int) -> Outbox:
    outbox = Outbox()
    outbox.put(TAG, bytes(chunks * CHUNK_BYTES))
    outbox.resume(0, credit)
    return outbox


def test_nothing_goes_out_before_the_peer_gives_credit() -> None:
    outbox = Outbox()
    outbox.put(TAG, b"x")
    assert outbox.next_chunk() is None
    outbox.resume(0, 1)
    assert drain(outbox) == [0]


def test_credit_is_the_limit_and_only_grows() -> None:
    outbox = filled(10, 3)
    assert drain(outbox) == [0, 1, 2]
    outbox.acknowledge(1, 5)
    outbox.acknowledge(1, 4)
    assert drain(outbox) == [3, 4]


def test_the_last_chunk_carries_the_digest_of_the_message() -> None:
    outbox = filled(2, 9)
    first, second = outbox.next_chunk(), outbox.next_chunk()
    assert (first.seq, first.last, first.sha256) == (0, False, b"")
    assert (second.seq, second.last) == (1, True)
    assert second.sha256 == hashlib.sha256(bytes(2 * CHUNK_BYTES)).digest()


def test_an_empty_message_is_one_chunk() -> None:
    outbox = Outbox()
    outbox.put(TAG, b"")
    outbox.resume(0, 1)
    chunk = outbox.next_chunk()
    assert (chunk.payload, chunk.last, chunk.sha256) == (b"", True, hashlib.sha256(b"").digest())


def test_it_is_empty_only_when_all_is_acknowledged() -> None:
    outbox = filled(2, 9)
    assert not outbox.is_empty
    drain(outbox)
    outbox.acknowledge(1, 9)
    assert not outbox.is_empty
    outbox.acknowledge(2, 9)
    assert outbox.is_empty


def test_after_a_new_connection_what_is_not_acknowledged_goes_out_again() -> None:
    outbox = filled(6, 5)
    assert drain(outbox) == [0, 1, 2, 3, 4]
    outbox.acknowledge(2, 5)
    outbox.resume(3, 6)
    assert drain(outbox) == [3, 4, 5]
    outbox.resume(3, 6)
    assert outbox.next_chunk().position == 3
    outbox.acknowledge(5, 6)
    assert drain(outbox) == [5]


def test_a_peer_that_forgot_what_it_acknowledged_is_an_error() -> None:
    outbox = filled(6, 5)
    drain(outbox)
    outbox.acknowledge(2, 5)
    with pytest.raises(ChannelError, match="it asks for 1, acknowledged were 2"):
        outbox.resume(1, 5)


def test_a_peer_that_acknowledges_what_was_not_sent_is_an_error() -> None:
    with pytest.raises(IntegrityError, match="acknowledges position 1, sent were 0"):
        filled(6, 5).acknowledge(1, 5)


def test_unsent_bytes_count_what_waits() -> None:
    outbox = filled(3, 2)
    assert outbox.unsent_bytes == 3 * CHUNK_BYTES
    drain(outbox)
    assert outbox.unsent_bytes == CHUNK_BYTES
