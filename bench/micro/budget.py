"""Counting whom a guest asks about, at the host."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from serving.budget import Ledger, QueryBudget
from serving.pool import ModelId

MODEL = ModelId("m", "1")
ROWS = 100


def _budget() -> QueryBudget:
    folder = tempfile.mkdtemp(prefix="tessera-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return QueryBudget(Ledger(Path(folder), "bank", bytes(32)), 1 << 40, 366 * 86_400.0)


def known_100() -> Callable[[], object]:
    """A batch of 100 users who were counted before. Budget: 100 µs."""
    budget, users = _budget(), [f"user-{number}" for number in range(ROWS)]
    budget.take(MODEL, users)
    return lambda: budget.take(MODEL, users)


def new_100() -> Callable[[], object]:
    """A batch of 100 new users, written to the ledger. Budget: 200 µs."""
    budget, number = _budget(), itertools.count()
    return lambda: budget.take(MODEL, [f"user-{next(number)}" for _ in range(ROWS)])
