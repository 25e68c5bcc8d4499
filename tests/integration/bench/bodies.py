"""Factories that generator processes import."""

from __future__ import annotations

from collections.abc import Callable


def numbered(every: int, special: str) -> Callable[[int], bytes]:
    """The call's number; every n-th call says something special."""
    return lambda number: special.encode() if number % every == every - 1 else b"call %d" % number


def same_length() -> Callable[[bytes, bytes], bool]:
    return lambda request, reply: len(request) == len(reply)
