"""What a cache level counts about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Since the start of the process. `errors` are faults of the store; `shed` are look-ups and writes that were not
    tried because the store was down or its queue full. `evictions`: entries that went before their end to make room;
    of a server, all that it evicted meanwhile, whoever wrote them."""

    hits: int = 0
    misses: int = 0
    fills: int = 0
    errors: int = 0
    shed: int = 0
    evictions: int = 0
