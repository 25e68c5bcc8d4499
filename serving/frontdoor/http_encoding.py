"""Compressed bodies over HTTP (RFC 9110, section 8.4): gzip, and deflate, which is zlib's format there."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Mapping

from serving.errors import InvalidRequestError, LimitError

AT_ONCE_BYTES = 64 << 10
"""Inflated, or squeezed, on the event loop; more in a thread."""
WORTH_BYTES = 16 << 10
"""Shorter replies leave as they are."""
MOST_FOLD = 64
"""What a body may become: features never shrink as far, and nobody is to have much read at no cost of his own."""
_FORMATS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""By the name of the encoding, zlib's word for it."""
_FASTEST = 1
_NEGOTIATED = {"vary": "accept-encoding"}
"""RFC 9110, section 12.5.5: for caches on the way, also where a reply leaves as it is."""
_NO_WEIGHT = re.compile(r"0(\.0{0,3})?")


async def inflated(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """What was squeezed. Raises InvalidRequestError, and LimitError before more than `max_bytes`, or many times what
    came, are kept."""
    if encoding not in _FORMATS:
        raise InvalidRequestError(f"content-encoding {encoding!r} is none of {', '.join(_FORMATS)}, identity")
    fold_bytes = max(AT_ONCE_BYTES, MOST_FOLD * len(body))
    limit, max_bytes = max_bytes, min(max_bytes, fold_bytes)
    inflater = zlib.decompressobj(_FORMATS[encoding])
    try:
        plain = inflater.decompress(body, min(AT_ONCE_BYTES, max_bytes + 1))
        if not inflater.eof and len(plain) <= max_bytes:
            plain += await asyncio.to_thread(inflater.decompress, inflater.unconsumed_tail, max_bytes + 1 - len(plain))
    except zlib.error:
        raise InvalidRequestError(f"the body is not {encoding}") from None
    if len(plain) > max_bytes:
        said = (
            f"more than {limit} bytes (limits.max_request_bytes)"
            if max_bytes == limit
            else f"{MOST_FOLD} times its size"
        )
        raise LimitError(f"the body becomes {said}")
    if not inflater.eof or inflater.unused_data:
        raise InvalidRequestError(f"the body is cut short, or something is behind its {encoding}")
    return plain


async def squeezed(body: bytes, accepted: str) -> tuple[bytes, Mapping[str, str]]:
    """For who accepts these encodings: what to send, and the headers that say so, or that it could be otherwise."""
    encoding = _chosen(accepted) if len(body) >= WORTH_BYTES else ""
    if not encoding:
        return body, _NEGOTIATED
    work = body, _FORMATS[encoding]
    small = _squeezed(*work) if len(body) <= AT_ONCE_BYTES else await asyncio.to_thread(_squeezed, *work)
    return small, {"content-encoding": encoding, **_NEGOTIATED}


def _squeezed(body: bytes, form: int) -> bytes:
    deflater = zlib.compressobj(_FASTEST, wbits=form)
    return deflater.compress(body) + deflater.flush()


def _chosen(accepted: str) -> str:
    """The first of ours that is named, and not with a weight of 0; "" for none."""
    for one in accepted.lower().replace(" ", "").split(","):
        name, _, weight = one.partition(";q=")
        if name in {"gzip", "deflate"} and not _NO_WEIGHT.fullmatch(weight):
            return name
    return ""
