"""What a service answers when a party fails: its policy. What stands in is flagged, and nothing of it is cached.

Under policy `partial` the mean partial stands in that the artifact declares; for a party of which it declares none,
`partial` is `fail`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from apps.app import PartyStatus
from loaders.loader import Scores
from serving.peers.partials import HostPartials
from serving.pool import ModelHandle
from serving.settings import FallbackPolicy, FallbackSettings

DEFAULT = "default"
"""In the settings: services that are not listed, and callers who name a version."""
FAIL = FallbackSettings()
_ABSENT = {PartyStatus.TIMEOUT, PartyStatus.REJECTED, PartyStatus.UNREACHABLE, PartyStatus.INTERNAL}
"""The party knows better than an old or a mean partial what else it says: that it does not know the user, say."""


class Outdated(Protocol):
    """Keeps partials for a while after they are fresh."""

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials: ...


class Fallbacks:
    """`settings` by service."""

    def __init__(self, settings: Mapping[str, FallbackSettings]) -> None:
        self._settings = settings

    def of(self, service: str) -> FallbackSettings:
        return self._settings.get(service) or self._settings.get(DEFAULT, FAIL)


async def filled(
    fallback: FallbackSettings,
    handle: ModelHandle,
    user_ids: Sequence[str],
    remote: Sequence[HostPartials],
    kept: Outdated,
) -> list[HostPartials]:
    """The partials with what may stand in for those that failed. Rows for which nothing does stay as they are."""
    if fallback.policy is FallbackPolicy.STALE:
        return [part if part.complete else await _stale(part, handle, user_ids, kept) for part in remote]
    if fallback.policy is FallbackPolicy.PARTIAL:
        return [part if part.complete else _mean(part, handle) for part in remote]
    if fallback.policy is FallbackPolicy.DEFAULT:
        return [replace(part, stand_ins=frozenset(part.failures())) for part in remote]
    return list(remote)


def scored(fallback: FallbackSettings, scores: Scores, remote: Sequence[HostPartials]) -> Scores:
    """The scores with the configured one where a party failed, if that is the policy."""
    if fallback.score is None:
        return scores
    lacking = np.zeros(len(scores), dtype=bool)
    for part in remote:
        lacking[part.failures()] = True
    return np.where(lacking[:, None], fallback.score, scores)


def own_scores(scores: Scores, remote: Sequence[HostPartials]) -> Scores:
    """NaN where something stands in for a party: no score of the model."""
    rows = sorted({row for part in remote for row in part.stand_ins})
    if not rows:
        return scores
    scores = scores.copy()
    scores[rows] = np.nan
    return scores


def _absent(part: HostPartials) -> list[int]:
    return [row for row in part.failures() if part.statuses[row] in _ABSENT]


def _mean(part: HostPartials, handle: ModelHandle) -> HostPartials:
    declared, rows = handle.stand_ins.get(part.party), _absent(part)
    if declared is None or not rows:
        return part
    values = part.values.copy()
    values[rows] = declared
    return replace(part, values=values, stand_ins=frozenset(rows))


async def _stale(part: HostPartials, handle: ModelHandle, user_ids: Sequence[str], kept: Outdated) -> HostPartials:
    rows = _absent(part)
    if not rows:
        return part
    found = await kept.stale(part.party, handle, [user_ids[row] for row in rows])
    values, levels, stand_ins = part.values.copy(), list(part.levels), set()
    for place, row in enumerate(rows):
        if found.statuses[place] is PartyStatus.OK:
            values[row], levels[row] = found.values[place], found.levels[place]
            stand_ins.add(row)
    return replace(part, values=values, levels=levels, stand_ins=frozenset(stand_ins))
