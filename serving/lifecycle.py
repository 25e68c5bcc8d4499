"""The life of one model at one replica: states, legal transitions, and the one function that changes a state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from serving.pool import ModelId


class ModelState(Enum):
    """READY is the only state that answers requests."""

    NEW = "NEW"
    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    UNLOADED = "UNLOADED"
    FAILED = "FAILED"


_NEXT: dict[ModelState, frozenset[ModelState]] = {
    ModelState.NEW: frozenset({ModelState.LOADING}),
    ModelState.LOADING: frozenset({ModelState.READY, ModelState.FAILED}),
    ModelState.READY: frozenset({ModelState.DRAINING}),
    ModelState.DRAINING: frozenset({ModelState.UNLOADED}),
    ModelState.UNLOADED: frozenset({ModelState.LOADING}),
    ModelState.FAILED: frozenset({ModelState.LOADING}),
}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """`since_s` is Unix time; `reason` says why a model FAILED."""

    model: ModelId
    state: ModelState
    since_s: float
    reason: str = ""


def advance(current: Lifecycle, state: ModelState, now_s: float, reason: str = "") -> Lifecycle:
    """The next record. Raises RuntimeError for a transition that does not exist: a defect of ours."""
    if state not in _NEXT[current.state]:
        raise RuntimeError(f"model {current.model} cannot go from {current.state.name} to {state.name}")
    return Lifecycle(current.model, state, now_s, reason)


class LoadState(IntEnum):
    """What one replica made of a load. Wire values."""

    LOADED = 0
    ALREADY_LOADED = 1
    FAILED = 2
    UNMANAGED = 3
    """The party takes no orders of this kind; it loads for itself."""


@dataclass(frozen=True, slots=True)
class ReplicaOutcome:
    """`reason` is public and only there when FAILED or UNMANAGED."""

    party: str
    replica: str
    state: LoadState
    reason: str = ""
