from __future__ import annotations

import gzip
import secrets
import zlib

import pytest

from serving.errors import InvalidRequestError, LimitError
from serving.frontdoor.http_encoding import AT_ONCE_BYTES, WORTH_BYTES, inflated, squeezed

PLAIN = bytes(range(256)) * 4
LARGE = secrets.token_hex(AT_ONCE_BYTES).encode()
SQUEEZE = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", list(SQUEEZE))
@pytest.mark.parametrize("plain", [b"", PLAIN, LARGE, LARGE[:AT_ONCE_BYTES]], ids=len)
async def test_what_was_squeezed_comes_back(encoding: str, plain: bytes) -> None:
    assert await inflated(SQUEEZE[encoding](plain), encoding, max(1, len(plain))) == plain


@pytest.mark.parametrize("encoding", list(SQUEEZE))
@pytest.mark.parametrize("plain", [PLAIN, LARGE], ids=len)
async def test_no_more_is_kept_than_a_body_may_have(encoding: str, plain: bytes) -> None:
    with pytest.raises(LimitError, match=f"more than {len(plain) - 1} bytes"):
        await inflated(SQUEEZE[encoding](plain), encoding, len(plain) - 1)


@pytest.mark.parametrize("encoding", list(SQUEEZE))
async def test_a_little_does_not_become_very_much(encoding: str) -> None:
    squeezed_lists = SQUEEZE[encoding](b"[" + b"[]," * (1 << 20))
    assert len(squeezed_lists) < (1 << 14)
    with pytest.raises(LimitError, match="becomes 64 times its size"):
        await inflated(squeezed_lists, encoding, 4 << 20)


@pytest.mark.parametrize(
    ("body", "encoding", "text"),
    [
        (PLAIN, "br", "content-encoding 'br' is none of gzip"),
        (PLAIN, "gzip, deflate", "is none of"),
        (PLAIN, "gzip", "is not gzip"),
        (b"", "gzip", "cut short"),
        (zlib.compress(PLAIN), "gzip", "is not gzip"),
        (gzip.compress(PLAIN), "deflate", "is not deflate"),
        (gzip.compress(PLAIN)[:-1], "gzip", "cut short"),
        (gzip.compress(LARGE)[:-9], "gzip", "cut short"),
        (gzip.compress(PLAIN) + b"x", "gzip", "something is behind"),
        (gzip.compress(LARGE)[:-8] + b"12345678", "gzip", "is not gzip"),
    ],
)
async def test_other_bodies_are_refused(body: bytes, encoding: str, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        await inflated(body, encoding, 1 << 20)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("br, deflate , gzip", "deflate"),
        ("gzip;q=0, deflate; q=0.001", "deflate"),
        ("gzip;q=0.000", ""),
        ("identity", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("body", [LARGE, LARGE[:WORTH_BYTES]], ids=len)
async def test_a_reply_is_squeezed_as_the_caller_accepts(accepted: str, encoding: str, body: bytes) -> None:
    sent, headers = await squeezed(body, accepted)
    assert (headers.get("content-encoding", ""), headers["vary"]) == (encoding, "accept-encoding")
    assert (await inflated(sent, encoding, len(body)) if encoding else sent) == body


async def test_a_short_reply_leaves_as_it_is() -> None:
    short = LARGE[: WORTH_BYTES - 1]
    assert await squeezed(short, "gzip") == (short, {"vary": "accept-encoding"})
