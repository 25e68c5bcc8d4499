"""Federated trees at the guest: 100 full trees of depth 5, half of the splits a host's, 30 inputs each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from loaders.artifact import Link, Merge, MergeKind
from loaders.catalog import load_servable, loader_for
from loaders.loader import Servable
from loaders.merge import merge_rule
from loaders.registry import open_half
from loaders.signature import Batch
from tests import forests


def guest_one_row() -> Callable[[], None]:
    """Own directions, then the walk with the host's, one row. Budget: 150 µs."""
    return _step(1)


def guest_1000_rows() -> Callable[[], None]:
    """The same for 1 000 rows. Budget: 15 ms."""
    return _step(1_000)


def host_one_row() -> Callable[[], None]:
    """The host's directions of one row."""
    batch = _batch(1)
    return lambda: _ignore(_halves()[1].predict(batch))


def host_1000_rows() -> Callable[[], None]:
    """The same for 1 000 rows."""
    batch = _batch(1_000)
    return lambda: _ignore(_halves()[1].predict(batch))


def _step(rows: int) -> Callable[[], None]:
    guest, host = _halves()
    rule = merge_rule(Merge(kind=MergeKind.TREE_WALK, link=Link.SIGMOID), guest)
    batch = _batch(rows)
    sent = host.predict(batch)["directions"]

    def step() -> None:
        rule([guest.predict(batch)["directions"], sent])

    return step


def _batch(rows: int) -> Batch:
    return Batch(np.random.default_rng(1).uniform(-1, 1, (rows, 30)), np.empty((rows, 0), dtype=np.object_))


@cache
def _halves() -> tuple[Servable, Servable]:
    with tempfile.TemporaryDirectory() as folder:
        roots = {party: Path(folder) / party for party in ("bank", "shop")}
        forests.publish(roots, forests.grow(1, (30, 30), 100, 5, full=True))
        guest, host = (load_servable(loader_for(open_half(root, "m", "1", party))) for party, root in roots.items())
    return guest, host


def _ignore(value: object) -> None:
    """The step is timed, its value is not needed."""
