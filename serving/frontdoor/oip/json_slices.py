"""Long lists in JSON, some elements at a time: the event loop turns meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

SLICE_BYTES = 16 << 10
"""Read in one turn of the event loop; some 0.5 ms."""
_LIST = msgspec.json.Decoder(list[Any])
_OPENING, _CLOSING, _QUOTE = b'[]"'


def slices(text: bytes, deepest: int) -> Iterator[list[Any]]:
    """The elements of a list, and of lists in it, in their order; `text` is JSON. Raises ValueError where lists lie
    deeper than `deepest`, where one has no elements, and for what msgspec does not read."""
    bare = text.replace(rb"\\", b"--").replace(rb"\"", b"--") if b"\\" in text else text
    depth = 0
    for begin, end in _cuts(bare):
        flat, depth = _flat(text[begin:end], bare[begin:end], depth, deepest)
        if not flat.strip():
            raise ValueError("a list has no elements")
        yield _LIST.decode(b"[%b]" % flat)


def _cuts(bare: bytes) -> Iterator[tuple[int, int]]:
    """From comma to comma. `bare` has no quotes but those around texts."""
    begin = 0
    while len(bare) - begin > SLICE_BYTES:
        comma = _comma(bare, begin, begin + SLICE_BYTES)
        if comma < 0:
            break
        yield begin, comma
        begin = comma + 1
    yield begin, len(bare)


def _comma(bare: bytes, begin: int, position: int) -> int:
    """The first one from `position` on that is in no text, as `begin` is in none; -1 for none."""
    if bare.count(b'"', begin, position) % 2:
        position = bare.find(b'"', position) + 1
    comma = bare.find(b",", position)
    quote = bare.find(b'"', position, comma) if comma >= 0 else -1
    if quote < 0:
        return comma
    return bare.find(b",", bare.find(b'"', quote + 1) + 1)


def _flat(text: bytes, bare: bytes, depth: int, deepest: int) -> tuple[bytes, int]:
    """Without the brackets of lists, and how deep its end lies."""
    codes = np.frombuffer(bare, np.uint8)
    steps = (codes == _OPENING).astype(np.int8) - (codes == _CLOSING)
    if b'"' in bare:
        steps[np.cumsum(codes == _QUOTE) % 2 == 1] = 0
    brackets = steps[steps != 0]
    if not brackets.size:
        return text, depth
    depths = depth + np.cumsum(brackets, dtype=np.int64)
    if depths.max() > deepest:
        raise ValueError("lists lie deeper than they may")
    return np.frombuffer(text, np.uint8)[steps == 0].tobytes(), int(depths[-1])
