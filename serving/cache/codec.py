"""The bytes of an entry in the shared level: u8 schema, u8 status, f64 fresh_until, f64 stale_until, payload."""

from __future__ import annotations

import math
import struct

from apps.app import PartyStatus
from serving.cache.tier import MISS, Entry, Found

SCHEMA = 1
_HEAD = struct.Struct("<BBdd")
_STATUSES = {status.value: status for status in (PartyStatus.OK, PartyStatus.NOT_FOUND)}


def encode(entry: Entry) -> bytes:
    return head(entry) + entry.payload


def head(entry: Entry) -> bytes:
    """All but the payload."""
    return _HEAD.pack(SCHEMA, entry.status, entry.fresh_until, entry.stale_until)


def decode(raw: bytes) -> Found:
    """MISS for what another version wrote, and for what nobody wrote."""
    if len(raw) < _HEAD.size or raw[0] != SCHEMA or (len(raw) - _HEAD.size) % 8:
        return MISS
    _, code, fresh_until, stale_until = _HEAD.unpack_from(raw)
    status = _STATUSES.get(code)
    if status is None or not (math.isfinite(fresh_until) and math.isfinite(stale_until)):
        return MISS
    return Entry(status, fresh_until, stale_until, raw[_HEAD.size :])
