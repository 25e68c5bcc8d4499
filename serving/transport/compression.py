"""Messages that leave compressed (grpc/doc/compression.md): only to peers that accept gzip, and only when it pays."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from serving.transport.call import Head, frame_message
from serving.transport.hpack import encode
from serving.transport.port import Compression

GZIP_FIELD = encode(((b"grpc-encoding", b"gzip"),))
_MAX_ON_LOOP_BYTES = 64 << 10


def accepts_gzip(head: Head) -> bool:
    accepted = dict(head.fields).get(b"grpc-accept-encoding", b"")
    return b"gzip" in [name.strip() for name in accepted.split(b",")]


def compression_of(setting: Any) -> Compression:
    """Ours for ours or for grpc's. Deflate, which nobody needs, is sent as gzip; peers cannot tell who chose."""
    if setting is None or isinstance(setting, Compression):
        return setting or Compression.IDENTITY
    return Compression.GZIP if int(setting) else Compression.IDENTITY


def _squeezed(message: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=31)
    squeezed = deflater.compress(message) + deflater.flush()
    if len(squeezed) >= len(message):
        return frame_message(message)
    return b"\x01" + len(squeezed).to_bytes(4, "big") + squeezed


async def frame_squeezed(message: bytes) -> bytes:
    """The message with its prefix, compressed if that makes it smaller; large ones in a thread."""
    if len(message) <= _MAX_ON_LOOP_BYTES:
        return _squeezed(message)
    return await asyncio.to_thread(_squeezed, message)
