"""Header compression against python-hyper's, and against bytes that mean harm."""

import gc
import tracemalloc

import hpack as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.transport.call import Head, request_prefix
from serving.transport.frames import ConnectionFault, ErrorCode
from serving.transport.hpack import Decoder, HeaderListTooLargeError, encode
from serving.transport.hpack_tables import STATIC_TABLE
from tests.unit.serving.transport.test_frames import HOW_LONG

NAMES = st.one_of(st.sampled_from(sorted({name for name, _ in STATIC_TABLE})), st.binary(max_size=20))
GREETING = ((b":method", b"POST"), (b":path", b"/a/b"), (b"user-agent", b"me"))
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=80)), max_size=12)


@given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=6))
def test_decodes_what_another_encoder_wrote(blocks):
    encoder, decoder = oracle.Encoder(), Decoder(tuple)
    for fields, huffman, table_bytes in blocks:
        if table_bytes is not None:
            encoder.header_table_size = table_bytes
        block = encoder.encode(fields, huffman=huffman)
        assert decoder.decode(block) == tuple(fields)


STARTS = st.sampled_from([GREETING, GREETING[:1], (), (*GREETING, (b"a", b"\x00\x0cgrpc-timeout"))])
VARYING = st.lists(
    st.tuples(st.sampled_from([b"grpc-timeout", b"traceparent", b"a"]), st.binary(max_size=9)), max_size=3
)


@given(st.lists(st.tuples(STARTS, VARYING, st.booleans()), max_size=12))
def test_decodes_calls_that_begin_alike_whether_they_are_indexed_or_not(blocks):
    encoder, decoder = oracle.Encoder(), Decoder(tuple)
    for start, varying, indexed in blocks:
        fields = (*start, *varying)
        block = encoder.encode(fields) if indexed else encode(fields)
        assert decoder.decode(block) == fields


@given(FIELDS)
def test_another_decoder_reads_what_we_wrote(fields):
    assert [(name, value) for name, value in oracle.Decoder().decode(encode(fields), raw=True)] == fields


PIECES = st.sampled_from(
    [b"\x82", b"\xbe", b"\x40\x01a\x01b", b"\x00\x81\xff\x00", b"\x3f\xe1\x1f", b"\x20", b"\x7f\xff\xff"]
)
BLOCKS = st.lists(st.one_of(st.binary(max_size=120), st.lists(PIECES, max_size=20).map(b"".join)), max_size=5)


@HOW_LONG
def test_any_bytes_decode_or_end_in_a_fault(how):
    @how
    @given(BLOCKS)
    def decoded(blocks):
        decoder = Decoder(Head, max_list_bytes=500)
        for block in blocks:
            try:
                decoder.decode(block)
            except ConnectionFault as fault:
                assert fault.code is ErrorCode.COMPRESSION_ERROR
                return
            except HeaderListTooLargeError:
                continue

    decoded()


def test_a_repeated_block_is_parsed_once_until_the_table_changes():
    parsed = []
    decoder = Decoder(lambda fields: parsed.append(fields) or fields)
    insert, use = b"\x40\x01a\x01b", b"\xbe"  # a literal that is indexed; the newest entry
    decoder.decode(insert)
    assert decoder.decode(use) == decoder.decode(use) == ((b"a", b"b"),)
    assert len(parsed) == 2
    decoder.decode(b"\x40\x01a\x01c")
    assert decoder.decode(use) == ((b"a", b"c"),)


def test_a_header_bomb_is_refused_and_leaves_the_table_right():
    decoder = Decoder(tuple, max_list_bytes=8192)
    value = b"v" * 3000
    decoder.decode(b"\x40\x01a\x7f\xb9\x16" + value)
    with pytest.raises(HeaderListTooLargeError):
        decoder.decode(b"\xbe" * 20_000)
    assert decoder.decode(b"\xbe") == ((b"a", value),)


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\xff\x7f",  # a huge index
        b"\x3f\xe2\x1f",  # a table larger than allowed
        b"\x82\x20",  # a size update after a field
        b"\x00\x05ab",  # a string cut short
        b"\x00\x81\x00\x00",  # a Huffman string padded with zeros
        b"\x00\x84\xff\xff\xff\xff\x00",  # the end-of-string symbol
        b"\x7f",  # a number cut short
    ],
)
def test_malformed_blocks_are_compression_errors(block):
    with pytest.raises(ConnectionFault) as caught:
        Decoder(tuple).decode(block)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


LITERALS = b"".join(b"\x00\x01" + bytes((97 + n % 26,)) + b"\x01" + bytes((n,)) for n in range(100))
LONG_VALUE = encode(((b"k", b"v" * 1000),))
MANY = {
    "long values": lambda number: LONG_VALUE[:-3] + b"%03d" % number,
    "many literals": lambda number: LITERALS + b"\x00\x01a\x03%03d" % number,
    "indexed fields": lambda number: b"\x82" * 900 + b"\x00\x01a\x03%03d" % number,
    "before timeouts": lambda number: encode(((b"k", b"%03d" % number * 300), (b"grpc-timeout", b"%d" % number))),
    "short": lambda number: b"\x00\x01a\x03%03d" % number,
}


@pytest.mark.parametrize("block", MANY.values(), ids=MANY.keys())
def test_blocks_that_never_repeat_cost_a_bounded_number_of_bytes(block):
    decoder = Decoder(Head, max_list_bytes=100_000)
    decoder.decode(block(999))
    gc.collect()
    tracemalloc.start()
    try:
        most = 0
        for number in range(300):
            decoder.decode(block(number))
            if number % 30 == 29:
                gc.collect()  # what the interpreter keeps of freed tuples is nobody's
                most = max(most, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert most < 40_000


def test_some_methods_of_a_connection_are_remembered():
    """Their blocks have as many fields as those of a gRPC client, each another path."""
    parsed = []
    decoder = Decoder(lambda fields: parsed.append(fields) or fields)
    blocks = [request_prefix(f"/tessera.v1.Inference/Method{number}", "127.0.0.1:50051") for number in range(6)]
    for _ in range(3):
        for block in blocks:
            decoder.decode(block)
    assert len(parsed) == len(blocks)
