"""What stands between requests and another party has the shape of the party."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from loaders.loader import PartialSpec
from serving.peers.peer import PeerAnswer
from serving.pool import ModelId
from serving.settings import Purpose


class Asked(Protocol):
    """A party that can be asked for partials: itself, or what stands in front of it."""

    def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> Awaitable[PeerAnswer]:
        """Never raises for what the peer or the network does. `deadline` is monotonic seconds."""

    async def close(self) -> None: ...
