import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.app import PartyStatus
from serving.cache.codec import decode, encode
from serving.cache.tier import MISS, Entry

TIMES = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from([PartyStatus.OK, PartyStatus.NOT_FOUND]), TIMES, TIMES, st.integers(0, 5).map(lambda n: 8 * n))
def test_what_goes_in_comes_out(status, fresh, stale, size):
    entry = Entry(status, fresh, stale, bytes(size))
    assert decode(encode(entry)) == entry


def test_the_bytes_are_fixed():
    entry = Entry(PartyStatus.NOT_FOUND, 1.5, 2.5, b"")
    assert encode(entry) == b"\x01\x01" + struct.pack("<dd", 1.5, 2.5)


GOOD = encode(Entry(PartyStatus.OK, 1.0, 2.0, bytes(8)))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        GOOD[:17],
        GOOD[:-1],
        b"\x02" + GOOD[1:],
        GOOD[:1] + bytes([PartyStatus.TIMEOUT]) + GOOD[2:],
        GOOD[:1] + b"\xff" + GOOD[2:],
        GOOD[:2] + struct.pack("<dd", math.nan, 2.0) + GOOD[18:],
        GOOD[:2] + struct.pack("<dd", 1.0, math.inf) + GOOD[18:],
    ],
)
def test_what_is_not_an_entry_is_a_miss(raw):
    assert decode(raw) is MISS


@given(st.binary(max_size=64))
def test_no_bytes_raise(raw):
    decode(raw)
