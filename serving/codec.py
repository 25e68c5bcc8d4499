"""What a public protocol gives the pipeline: wire bytes to a request, a response to wire bytes."""

from __future__ import annotations

from typing import Protocol

from apps.app import CacheLevel, Request, Response


class Codec(Protocol):
    """One method of one public protocol. `name`: protocol and method; part of the keys of the result cache. `protocol`:
    as figures call it."""

    name: str
    protocol: str

    def decode(self, raw: bytes) -> Request: ...

    def encode(self, response: Response, level: CacheLevel) -> bytes: ...

    def encode_row(self, response: Response, row: int, level: CacheLevel) -> bytes:
        """One of several rows that ran together, each a call of its own."""
        return self.encode(response.row(row), level)

    def reply(self, response: Response, row: int | None, level: CacheLevel) -> bytes:
        """To a call of all rows, or of one."""
        return self.encode(response, level) if row is None else self.encode_row(response, row, level)
