"""Several byte strings in one flat buffer: for each a little-endian u32 length, then its bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from training.privacy.matrix_cipher import ProtocolError


def join_pieces(pieces: Iterable[bytes]) -> bytes:
    return b"".join(part for piece in pieces for part in (struct.pack("<I", len(piece)), piece))


def split_pieces(buffer: bytes, count: int) -> list[bytes]:
    """Exactly `count` pieces. Raises ProtocolError for anything else."""
    pieces = list(_pieces(buffer))
    if len(pieces) != count:
        raise ProtocolError(f"the peer sent {len(pieces)} ciphertexts, the agreed shape needs {count}")
    return pieces


def _pieces(buffer: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(buffer):
        end = start + 4
        if end <= len(buffer):
            end += struct.unpack_from("<I", buffer, start)[0]
        if end > len(buffer):
            raise ProtocolError("the peer's ciphertexts end in the middle: the message was cut")
        yield buffer[start + 4 : end]
        start = end
