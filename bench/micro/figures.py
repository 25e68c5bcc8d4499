"""Counting an answer under its variant, and its attribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from apps.catalog import make_app
from serving.figures.effects import Effects
from serving.figures.store import MemoryFigureStore
from serving.pool import ModelId
from serving.routing import Target

TARGET = Target(ModelId("m", "1"), make_app("passthrough"), "m:1", "credit", 1)
SECRET = bytes(32)


def _answered(rows: int, attributed: bool) -> Callable[[], object]:
    effects = Effects(MemoryFigureStore(), SECRET)
    scores = np.linspace(0.01, 0.99, rows).reshape(rows, 1)
    seconds = [0.001] * rows
    return lambda: effects.answered(TARGET, scores, seconds, attributed)


def count_one() -> Callable[[], object]:
    """An answer counted. Budget: 1 µs."""
    return _answered(1, attributed=False)


def attribute_one() -> Callable[[], object]:
    """An answer counted and attributed. Budget: 5 µs."""
    return _answered(1, attributed=True)


def count_1_000() -> Callable[[], object]:
    """A batch of 1 000 answers counted. Budget: 100 µs."""
    return _answered(1_000, attributed=False)


def attribute_1_000() -> Callable[[], object]:
    """A batch of 1 000 answers counted and attributed, which it is when its caller asks for it."""
    return _answered(1_000, attributed=True)
