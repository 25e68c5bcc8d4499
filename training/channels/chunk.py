"""A chunk: one piece of one message, as it travels from one party to another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from training.channel import CHUNK_BYTES, Tag


@dataclass(frozen=True, slots=True)
class Chunk:
    """`position` counts all chunks of a stream from 0, `seq` those of the message. `sha256` is of the whole message
    and stands on its last chunk only."""

    position: int
    tag: Tag
    seq: int
    last: bool
    sha256: bytes
    payload: bytes


def split(tag: Tag, payload: bytes, position: int) -> Iterator[Chunk]:
    """The chunks of one message, made when asked for so that hashing a long one does not hold up the event loop."""
    digest = hashlib.sha256()
    count = max(1, -(-len(payload) // CHUNK_BYTES))
    for seq in range(count):
        piece = payload[seq * CHUNK_BYTES : (seq + 1) * CHUNK_BYTES]
        digest.update(piece)
        last = seq == count - 1
        yield Chunk(position + seq, tag, seq, last, digest.digest() if last else b"", piece)
