"""Header compression (RFC 7541): a decoder with a cache of whole blocks, and an encoder that never indexes.

A block that left the dynamic table unchanged decodes to the same fields until the table changes; real clients repeat
their blocks, so most requests cost one dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Generic, TypeVar

from serving.transport.frames import ConnectionFault, ErrorCode
from serving.transport.hpack_tables import STATIC_TABLE
from serving.transport.huffman import huffman_decode

Field = tuple[bytes, bytes]
Head = TypeVar("Head")

_STATIC: list[Field] = [(b"", b""), *STATIC_TABLE]  # indices count from one
_LARGEST_STATIC = max(len(name) + len(value) + 32 for name, value in STATIC_TABLE)
_TIMEOUT_FOLLOWS = b"\x00\x0cgrpc-timeout"
"""A literal that is not indexed."""
_CACHED_BLOCK_BYTES = 1024
_CACHED_BYTES = 16_000
_FIELD_BYTES = 160
"""What a field costs in memory besides its text, and with its place in what is made of the block."""
_ENTRY_BYTES = 400
_NAME_INDEX = {name: index for index, (name, _) in reversed(list(enumerate(STATIC_TABLE, 1)))}
_FIELD_INDEX = {field: index for index, field in enumerate(STATIC_TABLE, 1)}


class HeaderListTooLargeError(Exception):
    """The fields of one block exceed the limit. The block was decoded to its end: the connection may live on."""


def _fault(reason: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, reason)


class _Remembered(dict[bytes, Head]):
    """What was made of blocks, by block. Whoever never repeats itself costs a bounded number of bytes."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def remember(self, block: bytes, made: Head, fields: int) -> None:
        cost = 2 * len(block) + _FIELD_BYTES * fields + _ENTRY_BYTES
        if cost > _CACHED_BYTES:
            return
        if self._bytes + cost > _CACHED_BYTES:
            self.forget()
        self._bytes += cost
        self[block] = made

    def forget(self) -> None:
        self.clear()
        self._bytes = 0


class Decoder(Generic[Head]):
    """The dynamic table of one direction of a connection. `parse` turns the fields of a block into what is kept."""

    def __init__(
        self, parse: Callable[[tuple[Field, ...]], Head], max_list_bytes: int = 16_384, table_bytes: int = 4096
    ) -> None:
        self._parse = parse
        self._max_list_bytes = max_list_bytes
        self._allowed_table_bytes = self._table_bytes = table_bytes
        self._table: list[Field] = _STATIC  # both tables in the order of their indices; an own list once it has entries
        self._used_bytes = 0
        self._largest_bytes = _LARGEST_STATIC
        self._changed = False
        self._blocks: _Remembered[Head] = _Remembered()
        self._starts: _Remembered[tuple[Field, ...]] = _Remembered()

    def decode(self, block: bytes) -> Head:
        """Raises ConnectionFault for a malformed block, HeaderListTooLargeError, and what `parse` raises."""
        known = self._blocks.get(block)
        if known is not None:
            return known
        self._changed = False
        try:
            fields = self._fields(block)
        finally:
            if self._changed:
                self._forget()
        head = self._parse(fields)
        if not self._changed and len(block) <= _CACHED_BLOCK_BYTES:
            self._blocks.remember(block, head, len(fields))
        return head

    def _forget(self) -> None:
        self._blocks.forget()
        self._starts.forget()

    def _fields(self, block: bytes) -> tuple[Field, ...]:
        start = block.partition(_TIMEOUT_FOLLOWS)[0]
        known = self._starts.get(start)
        fields: list[Field] = [] if known is None else list(known)
        position = 0 if known is None else len(start)
        table, size = self._table, len(block)
        while position < size:
            first = block[position]
            if 0x80 < first < 0xFF:  # most fields: indexed, in one byte
                try:
                    fields.append(table[first & 0x7F])
                except IndexError:
                    raise _no_field(first & 0x7F) from None
                position += 1
            elif first & 0xE0 == 0x20:
                if fields:
                    raise _fault("a table size update after the first field")
                position = self._resize(block, position)
            else:
                if known is None and position == len(start):
                    self._remember_start(start, fields)
                field, position = self._field(block, position)
                fields.append(field)
                table = self._table
        if len(fields) * self._largest_bytes + 2 * size > self._max_list_bytes:  # no sum where none can be too large
            self._measure(fields)
        return tuple(fields)

    def _remember_start(self, start: bytes, fields: list[Field]) -> None:
        """Callers that index nothing send the same fields up to their timeout."""
        if not self._changed and len(start) <= _CACHED_BLOCK_BYTES:
            self._starts.remember(start, tuple(fields), len(fields))

    def _measure(self, fields: list[Field]) -> None:
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        if size > self._max_list_bytes:
            raise HeaderListTooLargeError(f"header fields of {size} bytes")

    def _field(self, block: bytes, position: int) -> tuple[Field, int]:
        first = block[position]
        if first & 0x80:
            index, position = _integer(block, position, 7)
            return self._entry(index), position
        indexed = first & 0x40
        index = first & 0x3F if indexed else first & 0x0F
        if index == (0x3F if indexed else 0x0F):
            index, position = _integer(block, position, 6 if indexed else 4)
        else:
            position += 1
        if index:
            name = self._entry(index)[0]
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        field = (name, value)
        if indexed:
            self._insert(field)
        return field, position

    def _entry(self, index: int) -> Field:
        if 0 < index < len(self._table):
            return self._table[index]
        raise _no_field(index)

    def _insert(self, field: Field) -> None:
        if self._table is _STATIC:
            self._table = _STATIC.copy()
        self._changed = True
        self._table.insert(len(_STATIC), field)
        size = len(field[0]) + len(field[1]) + 32
        self._used_bytes += size
        self._largest_bytes = max(self._largest_bytes, size)
        if self._used_bytes > self._table_bytes:
            self._evict()

    def _resize(self, block: bytes, position: int) -> int:
        self._table_bytes, position = _integer(block, position, 5)
        if self._table_bytes > self._allowed_table_bytes:
            raise _fault(f"a dynamic table of {self._table_bytes} bytes")
        self._changed = True
        self._evict()
        return position

    def _evict(self) -> None:
        while self._used_bytes > self._table_bytes:
            name, value = self._table.pop()
            self._used_bytes -= len(name) + len(value) + 32


def _no_field(index: int) -> ConnectionFault:
    return _fault(f"no header field at index {index}")


def _integer(block: bytes, position: int, prefix_bits: int) -> tuple[int, int]:
    limit = (1 << prefix_bits) - 1
    value = block[position] & limit
    position += 1
    if value < limit:
        return value, position
    for shift in (0, 7, 14, 21):
        if position >= len(block):
            raise _fault("a header block that ends in a number")
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _fault("a number too large")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    if position >= len(block):
        raise _fault("a header block that ends before a string")
    first = block[position]
    if first & 0x7F < 0x7F:
        length, position = first & 0x7F, position + 1
    else:
        length, position = _integer(block, position, 7)
    end = position + length
    if end > len(block):
        raise _fault("a header block that ends in a string")
    text = block[position:end]
    return (huffman_decode(text) if first & 0x80 else text), end


def encode(fields: Iterable[Field]) -> bytes:
    """A block that needs no dynamic table: names and values from the static table, literals for the rest."""
    return b"".join(_encoded(name, value) for name, value in fields)


def _encoded(name: bytes, value: bytes) -> bytes:
    index = _FIELD_INDEX.get((name, value))
    if index is not None and value:
        return _number(index, 7, 0x80)
    return _encoded_name(name) + _number(len(value), 7, 0) + value


@lru_cache(maxsize=256)
def _encoded_name(name: bytes) -> bytes:
    index = _NAME_INDEX.get(name, 0)
    return _number(index, 4, 0) if index else b"\x00" + _number(len(name), 7, 0) + name


def _number(value: int, prefix_bits: int, flags: int) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((flags | value,))
    out = bytearray((flags | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
