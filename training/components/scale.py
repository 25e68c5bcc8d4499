"""Fills missing values with the mean and scales columns to mean 0 and standard deviation 1, as seen in `train`.

Every party does so alone with its own columns; nothing leaves the party.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from training.component import Component, ComponentError, Context, ModelPart, PortKind, Table, Value

Floats = npt.NDArray[np.float64]


class ScaleParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None."""


class Scale(Component):
    """The model holds `fill`, `mean` and `scale`, each (columns,). A constant column has scale 1."""

    Parameters: ClassVar[type[msgspec.Struct]] = ScaleParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {"train": PortKind.DATA, "test": PortKind.DATA}
    optional_inputs: ClassVar[frozenset[str]] = frozenset({"test"})
    outputs: ClassVar[Mapping[str, PortKind]] = {
        "train": PortKind.DATA,
        "test": PortKind.DATA,
        "model": PortKind.MODEL,
    }

    async def run(
        self, context: Context, parameters: ScaleParameters, inputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        train, test = inputs["train"], inputs.get("test")
        if not isinstance(train, Table):
            raise ComponentError(f"scale at party {context.party}: input train must be a table")
        model = fitted(train, context.party)
        outputs: dict[str, Value] = {"model": model, "train": _scaled(train, model)}
        if isinstance(test, Table):
            if test.columns != train.columns:
                raise ComponentError(f"scale at party {context.party}: test has other columns than train")
            outputs["test"] = _scaled(test, model)
        return outputs


def fitted(table: Table, party: str) -> ModelPart:
    known = ~np.isnan(table.features)
    counts = known.sum(axis=0)
    if (counts == 0).any():
        column = table.columns[int((counts == 0).argmax())]
        raise ComponentError(f"scale at party {party}: column {column} has no value in any row; leave it out")
    fill: Floats = np.where(known, table.features, 0.0).sum(axis=0) / counts
    filled = np.where(known, table.features, fill)
    mean, scale = filled.mean(axis=0), filled.std(axis=0)
    # The deviation of a constant column is rounding, not always 0.
    scale[np.ptp(filled, axis=0) == 0] = 1.0
    return ModelPart("scale", table.columns, {"fill": fill, "mean": mean, "scale": scale})


def _scaled(table: Table, model: ModelPart) -> Table:
    filled = np.where(np.isnan(table.features), model.arrays["fill"], table.features)
    features = (filled - model.arrays["mean"]) / model.arrays["scale"]
    return Table(table.ids, table.columns, features, table.label)
