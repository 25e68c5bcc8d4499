"""What to do so that the loaded models become the wanted ones. Pure: a snapshot in, actions out."""

from __future__ import annotations

from collections.abc import Mapping, Set
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
