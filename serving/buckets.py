"""Which buckets a variant of a service owns. A changed weight moves as few users as possible."""

from __future__ import annotations

from collections.abc import Sequence

from serving.routing import BUCKETS

Ranges = tuple[tuple[int, int], ...]
"""Half-open intervals of buckets, rising, not touching."""


def assign(previous: Sequence[Ranges], weights: Sequence[int]) -> list[Ranges]:
    """New ranges, one per variant; `previous` holds each variant's ranges so far, () for a new one.

    A variant that shrinks gives up its highest buckets; what is free goes to those that grow, lowest first. `weights`
    are basis points that sum to 10 000.
    """
    owned = [_buckets(ranges)[:weight] for ranges, weight in zip(previous, weights, strict=True)]
    taken = set().union(*owned)
    free = iter(position for position in range(BUCKETS) if position not in taken)
    return [
        _ranges(sorted([*kept, *(next(free) for _ in range(weight - len(kept)))]))
        for kept, weight in zip(owned, weights, strict=True)
    ]


def _buckets(ranges: Ranges) -> list[int]:
    return [position for low, high in ranges for position in range(low, high)]


def _ranges(positions: Sequence[int]) -> Ranges:
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and found[-1][1] == position:
            found[-1] = (found[-1][0], position + 1)
        else:
            found.append((position, position + 1))
    return tuple(found)
