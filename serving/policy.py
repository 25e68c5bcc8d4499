"""What to do so that the loaded models become the wanted ones, and which go to make room. Pure: a snapshot in, actions
out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from enum import Enum

from serving.lifecycle import ModelState
from serving.pool import ModelId


class Step(Enum):
    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True, order=True)
class Action:
    model: ModelId
    step: Step


_LOADABLE = {ModelState.NEW, ModelState.UNLOADED}


def decide(
    wanted: Set[ModelId], actual: Mapping[ModelId, ModelState], again: Set[ModelId] = frozenset()
) -> list[Action]:
    """Actions in a fixed order. A model in LOADING or DRAINING is left alone until it settles; one that FAILED is
    tried again only when it is in `again`."""
    actions = []
    for model in sorted(wanted):
        state = actual.get(model, ModelState.NEW)
        if state in _LOADABLE or (state is ModelState.FAILED and model in again):
            actions.append(Action(model, Step.LOAD))
    unwanted = sorted(model for model in actual.keys() - wanted if actual[model] is ModelState.READY)
    return actions + [Action(model, Step.UNLOAD) for model in unwanted]


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model. `used`: larger the later it was used. `pinned`: somebody needs it."""

    model: ModelId
    bytes: int
    used: int
    pinned: bool


def evictions(residents: Iterable[Resident], lacking: int) -> list[ModelId]:
    """What to unload for so many bytes, the least recently used first and no more than it takes; nothing when all that
    is not pinned would not do."""
    free = sorted((one for one in residents if not one.pinned), key=lambda one: one.used)
    chosen: list[ModelId] = []
    for one in free:
        if lacking <= 0:
            break
        chosen.append(one.model)
        lacking -= one.bytes
    return chosen if lacking <= 0 else []
