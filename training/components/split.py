"""Holds rows out for testing, by a hash of the id: all parties hold out the same rows without talking."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from training.component import Component, ComponentError, Context, PortKind, Table, Value


class SplitParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal on every party. `test_share_bp`: share of held-out rows in basis points; `salt` picks other rows."""

    test_share_bp: Annotated[int, msgspec.Meta(ge=1, le=9_999)] = 2_000
    salt: str = ""


class Split(Component):
    """A row is in `test` if SHA-256(salt + id), its first 8 bytes big-endian, modulo 10 000 is below the share."""

    equal_parameters: ClassVar[bool] = True
    Parameters: ClassVar[type[msgspec.Struct]] = SplitParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {"data": PortKind.DATA}
    outputs: ClassVar[Mapping[str, PortKind]] = {"train": PortKind.DATA, "test": PortKind.DATA}

    async def run(
        self, context: Context, parameters: SplitParameters, inputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        table = inputs["data"]
        if not isinstance(table, Table):
            raise ComponentError(f"split at party {context.party}: input data must be a table")
        held_out = np.array(
            [_bucket(parameters.salt, name) < parameters.test_share_bp for name in table.ids], dtype=bool
        )
        if not held_out.any() or held_out.all():
            raise ComponentError(
                f"split: {len(table.ids)} rows are too few for test_share_bp = {parameters.test_share_bp}: "
                "one side would be empty"
            )
        context.log_metric("train_rows", int((~held_out).sum()))
        context.log_metric("test_rows", int(held_out.sum()))
        return {"train": _rows(table, ~held_out), "test": _rows(table, held_out)}


def _bucket(salt: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "big") % 10_000


def _rows(table: Table, mask: npt.NDArray[np.bool_]) -> Table:
    ids = tuple(name for name, chosen in zip(table.ids, mask.tolist(), strict=True) if chosen)
    return Table(ids, table.columns, table.features[mask], None if table.label is None else table.label[mask])
