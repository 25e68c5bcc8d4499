"""What FATE-Serving's JSON costs: directions of 100 full trees of depth 5, half of the splits this host's."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np

from loaders.artifact import MergeKind
from loaders.fate.partner import Branches, PartnerHalf, PayloadReader
from loaders.loader import PartialForm, PartialSpec

TREES, NODES = 100, 15
SPEC = PartialSpec(PartialForm.DIRECTIONS, TREES * NODES)
BRANCHES = [Branches(str(tree), tuple(str(2 * node) for node in range(NODES))) for tree in range(TREES)]
HALF = PartnerHalf("hetero_secure_boost_0", MergeKind.TREE_WALK, SPEC, BRANCHES)
READER = PayloadReader(HALF.component, SPEC, BRANCHES)


def host_writes_300_rows() -> Callable[[], object]:
    """Packed bits to the JSON of a batch's payloads."""
    values = _values(300)
    return lambda: msgspec.json.encode(HALF.payloads(values))


def guest_reads_300_rows() -> Callable[[], object]:
    """That JSON to packed bits."""
    raw = msgspec.json.encode([{HALF.component: payload} for payload in HALF.payloads(_values(300))])
    return lambda: np.concatenate([READER.partial(row) for row in msgspec.json.decode(raw)])


def guest_reads_one_row() -> Callable[[], object]:
    """The same for one user."""
    [payload] = HALF.payloads(_values(1))
    raw = msgspec.json.encode({HALF.component: payload})
    return lambda: READER.partial(msgspec.json.decode(raw))


def _values(rows: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (rows, SPEC.columns), dtype=np.uint8)
