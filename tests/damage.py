"""Messages, documents and bytes that are nearly right: random damage, the same for the same source of numbers."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0, 5e-324)
INTEGERS = (0, -1, 1, 7, 100_000, 2**31 - 1, -(2**31))
WORDS = ("", "nan", "m", "1", "s", "user_id", "é", "\0", "x" * 1_000, "FP64", "BYTES", "guest#9999#m")
RAW = (b"", b"\xff", bytes(8), b"\4\0\0\x000001", b"[", b'{"a":1}')
JUNK = (None, True, 0, -1, 1.5, 10**30, 2**63, "", "x", "nan", "1e999", "é\0", [], {}, [1], [[1]], {"a": 1})


def within(message: Any) -> Iterator[Any]:
    """A message of protobuf and all that are set in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        else:
            inner = value if field.is_repeated else (value,)
        for one in inner:
            yield from within(one)


def spoil(source: random.Random, whole: Any, words: Sequence[str] = WORDS) -> None:
    """One value somewhere in a message becomes odd, appears or goes. `words`: what texts may become."""
    message = source.choice([one for one in within(whole) if one.DESCRIPTOR.fields] or [None])
    if message is None:
        return
    field = source.choice(list(message.DESCRIPTOR.fields))
    value = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        kinds = field.message_type.fields_by_name
        key = source.choice(sorted(value)) if value and source.random() < 0.7 else _odd(source, kinds["key"], words)
        if kinds["value"].message_type:
            value[key].SetInParent()
        else:
            value[key] = _odd(source, kinds["value"], words)
    elif field.is_repeated and value and source.random() < 0.5:
        value.pop()
    elif field.is_repeated:
        value.add() if field.message_type else value.append(_odd(source, field, words))
    elif field.message_type:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _odd(source, field, words))


def _odd(source: random.Random, field: Any, words: Sequence[str]) -> object:
    texts = RAW if field.type == field.TYPE_BYTES else words
    by_type: dict[int, Sequence[object]] = {
        field.CPPTYPE_DOUBLE: NUMBERS,
        field.CPPTYPE_FLOAT: (math.nan, math.inf, 0.0, 1.5),
        field.CPPTYPE_INT32: INTEGERS,
        field.CPPTYPE_INT64: (*INTEGERS, 2**63 - 1, -(2**63)),
        field.CPPTYPE_UINT32: (0, 1, 2**32 - 1),
        field.CPPTYPE_UINT64: (0, 1, 2**64 - 1),
        field.CPPTYPE_BOOL: (False, True),
        field.CPPTYPE_ENUM: (0, 1),
        field.CPPTYPE_STRING: texts,
    }
    return source.choice(by_type[field.cpp_type])


def spoiled_json(source: random.Random, document: Any, times: int = 2) -> bytes:
    """Values of a document become odd, appear or go; "1e999" becomes a number beyond float64."""
    whole = {"whole": copy.deepcopy(document)}
    for _ in range(times):
        holder, key = source.choice(list(_places(whole)))
        how = source.random()
        if how < 0.6 or holder is whole:
            holder[key] = copy.deepcopy(source.choice(JUNK)) if holder is not whole or how < 0.1 else holder[key]
        elif how < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[source.choice(WORDS)] = copy.deepcopy(source.choice(JUNK))
        else:
            holder.append(copy.deepcopy(source.choice(JUNK)))
    raw = json.dumps(whole["whole"]).replace('"1e999"', "1e999").encode()
    return spoiled_bytes(source, raw) if source.random() < 0.1 else raw


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Where values stand: what holds them, and their key."""
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        yield holder, key
        if isinstance(value, dict | list):
            yield from _places(value)


def spoiled_bytes(source: random.Random, raw: bytes) -> bytes:
    """Some bytes become others, go or come."""
    damaged = bytearray(raw)
    for _ in range(source.randint(1, 3)):
        place = source.randrange(len(damaged) + 1)
        end = place + source.randrange(4)
        damaged[place:end] = source.randbytes(source.randrange(4))
    return bytes(damaged)
