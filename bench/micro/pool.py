"""Borrowing a model from the pool: once per request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from loaders.artifact import Artifact, Manifest, Merge, MergeKind, TensorSpec
from loaders.loader import Outputs, Servable
from loaders.merge import merge_rule
from loaders.signature import Batch, Signature
from serving.pool import ModelHandle, ModelId, ModelPool


class Idle(Servable):
    """The pool never asks it."""

    signature = Signature((), (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),))

    def predict(self, batch: Batch) -> Outputs:
        return {}


def handle(model: ModelId) -> ModelHandle:
    merge = Merge(kind=MergeKind.NONE)
    half = Manifest(
        model=model.model,
        version=model.version,
        role="guest",
        party="bank",
        format="tessera",
        inputs=(),
        outputs=(),
        merge=merge,
    )
    return ModelHandle(Artifact(Path(), half, "", ""), Idle(), merge_rule(merge, Idle()), 1)


def pool_acquire() -> Callable[[], None]:
    """Acquire and give back one of 20 loaded models. Budget: 1 µs."""
    pool = ModelPool(1_000)
    for number in range(20):
        pool.put(handle(ModelId("m", str(number))))
    wanted = ModelId("m", "7")

    def borrow() -> None:
        with pool.acquire(wanted):
            pass

    return borrow
