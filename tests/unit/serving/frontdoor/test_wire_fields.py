"""Fields put together by hand are what protobuf reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.frontdoor.wire_fields import delimited, delimited_head, enumerated, varint
from tessera.v1 import inference_pb2 as wire


@given(label=st.text(max_size=300), attribution=st.binary(max_size=20_000), cache=st.integers(0, 3))
def test_a_message_of_single_fields(label, attribution, cache):
    raw = delimited(2, label.encode()) + delimited(9, attribution) + enumerated(8, cache)
    expected = wire.PredictReply(label=label, attribution=attribution, cache=cache)
    assert wire.PredictReply.FromString(raw) == expected


@given(st.integers(0, 2**64 - 1))
def test_whole_numbers_of_any_size(number):
    assert varint(number) == _by_bits(number)


def test_the_head_alone():
    assert delimited_head(1, 8) == b"\x0a\x08"
    assert delimited_head(16, 300) == b"\x82\x01\xac\x02"


def _by_bits(number):
    """Seven bits a byte, the lowest first, the top bit set in all but the last."""
    groups = []
    while True:
        groups.append(number % 128)
        number //= 128
        if not number:
            return bytes([group + 128 for group in groups[:-1]] + groups[-1:])
