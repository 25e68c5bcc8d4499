"""What the linear components share: weights by column, one set per output, and missing columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from loaders.artifact import Merge
from loaders.fate.component import Columns, Component, ComponentError, Model
from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import Steps
from loaders.servables.program import NAN_SENT, Column, Fill, Replace
from loaders.signature import Numbers, Signature, TensorSpec


class Weights(Protocol):
    """One set of weights, as several of FATE's messages hold it."""

    @property
    def weight(self) -> Mapping[str, float]: ...
    @property
    def intercept(self) -> float: ...
    @property
    def header(self) -> Sequence[str]: ...


def refuse_encrypted(encrypted: Mapping[str, object], has_cipher: bool) -> None:
    if encrypted or has_cipher:
        raise ComponentError("its weights are encrypted or secret-shared; train it with revealed weights")


def linear_model(component: Component, columns: Columns, sets: Sequence[Weights], merge: Merge) -> Model:
    """Weights of columns that the pipeline does not bring count for nothing in FATE-Serving; offline there are none."""
    names = _names(sets)
    found = used_columns(component, columns, names)
    weights = np.array([[one.weight.get(name, 0.0) for one in sets] for name in found]).reshape(-1, len(sets))
    intercept = np.array([one.intercept for one in sets])
    return Model(
        columns=tuple(found.values()),
        build=lambda signature: linear_servable(signature, weights, intercept),
        output=TensorSpec(name="partial", dtype="float64", shape=(-1, len(sets))),
        merge=merge,
    )


def used_columns(component: Component, columns: Columns, names: Sequence[str]) -> dict[str, Column]:
    """Columns of a linear model. For FATE-Serving a missing one adds nothing to the score; offline it is an error."""
    found = {name: columns.number(name) for name in names}
    absent = sorted(name for name, column in found.items() if column is None)
    if absent and not component.site.compat:
        raise ComponentError(f"no component before it gives column {absent[0]!r}")
    there = {name: column for name, column in found.items() if column is not None}
    if component.site.compat:
        return {name: without_nan(column, columns).then(columns.stage + 2, Fill(0.0)) for name, column in there.items()}
    return there


def without_nan(column: Column, columns: Columns) -> Column:
    """A NaN of a caller is missing in a sum, which it would be of itself."""
    return column.then(columns.stage + 1, Replace(frozenset({NAN_SENT}), math.nan)) if column.may_be_nan else column


def linear_servable(signature: Signature, weights: Numbers, intercept: Numbers) -> LinearServable:
    """Over columns that need no more steps. Raises ComponentError when the numbers are not finite."""
    features = weights.shape[0]
    steps = Steps(np.full(features, np.nan), np.zeros(features), np.ones(features))
    try:
        return LinearServable(signature, steps, weights, intercept)
    except OverflowError:
        raise ComponentError("a weight or the intercept is not finite") from None


def _names(sets: Sequence[Weights]) -> list[str]:
    """In the order of the header, then by name: maps of protobuf have no order."""
    weighed = {name for one in sets for name in one.weight}
    headed = dict.fromkeys(name for one in sets for name in one.header if name in weighed)
    return [*headed, *sorted(weighed - headed.keys())]
