"""What a service answers when a party fails: its policy. What stands in is flagged, and nothing of it is cached.

By the table of errors something stands in whatever the party's status is, and the caller is told the status. Two of
them need a reason:

- MISMATCH: the host has another binding or protocol, or its reply cannot be used. Who asks *this* node for the wrong
  version is refused (FAILED_PRECONDITION), for it can ask for the right one; who asks for a score can do nothing about
  two parties that disagree, and to it the host refuses. What stands in is none of the host's: the mean partial is
  declared in our half of this very version, and what was kept lies under this binding's key.
- NOT_FOUND: a mean partial is what can be said of a user of whom nothing is known. One that was kept is not: the host
  said since that it has nothing of the user (any more), which is the newer word. So policy `stale` is `fail` then.

Where nothing stands in (`partial` for a party of which the artifact declares no mean, `stale` without anything kept)
the policy is `fail` for the row: there is no score to answer.
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


def _mean(part: HostPartials, handle: ModelHandle) -> HostPartials:
    declared, rows = handle.stand_ins.get(part.party), part.failures()
    if declared is None:
        return part
    values = part.values.copy()
    values[rows] = declared
    return replace(part, values=values, stand_ins=frozenset(rows))


async def _stale(part: HostPartials, handle: ModelHandle, user_ids: Sequence[str], kept: Outdated) -> HostPartials:
    rows = [row for row in part.failures() if part.statuses[row] is not PartyStatus.NOT_FOUND]
    if not rows:
        return part
    found = await kept.stale(part.party, handle, [user_ids[row] for row in rows])
    values, levels, stand_ins = part.values.copy(), list(part.levels), set()
    for place, row in enumerate(rows):
        if found.statuses[place] is PartyStatus.OK:
            values[row], levels[row] = found.values[place], found.levels[place]
            stand_ins.add(row)
    return replace(part, values=values, levels=levels, stand_ins=frozenset(stand_ins))
