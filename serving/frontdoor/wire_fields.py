"""Single fields of protobuf messages as bytes, for replies put together from parts: messages one after the other are
one message (https://protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

_DELIMITED = 2
_BYTE = 0x80


def delimited(number: int, value: bytes) -> bytes:
    """A field of bytes, of text in UTF-8, of a message, or of packed numbers."""
    return delimited_head(number, len(value)) + value


def delimited_head(number: int, size: int) -> bytes:
    """What comes before a value of `size` bytes."""
    return varint(number << 3 | _DELIMITED) + varint(size)


def enumerated(number: int, value: int) -> bytes:
    """A field of an enum, a whole number that is not negative, or a bool."""
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    if value < _BYTE:
        return _SHORT[value]
    out = bytearray()
    while value >= _BYTE:
        out.append(value & (_BYTE - 1) | _BYTE)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT = tuple(bytes((value,)) for value in range(_BYTE))
