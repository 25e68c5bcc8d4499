"""What a node brings to warm the caches: who is active, and the fetching ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.activity import Activity
from serving.prefetch import Prefetching


@dataclass(frozen=True, slots=True)
class Warming:
    """`counting`: whether calls count as activity."""

    activity: Activity
    prefetching: Prefetching
    counting: bool = True

    def seen(self, service: str, user_ids: Sequence[str]) -> None:
        if self.counting:
            self.activity.count(service, user_ids)

    def seen_again(self, service: str, mark: bytes) -> None:
        if self.counting:
            self.activity.count_again(service, mark)

    def mark(self, user_id: str) -> bytes:
        return self.activity.seal(user_id) if self.counting else b""
