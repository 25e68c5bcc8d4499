"""Scale: to [0, 1] or to mean 0 and deviation 1, within limits."""

from __future__ import annotations

from dataclasses import replace

from loaders.fate.component import Columns, Component, ComponentError
from loaders.servables.program import Above, Column, Rescale, Step
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"Scale", "FeatureScale"})

NARROW = 1e-6
"""A range below this counts as 1."""


def transform(component: Component, columns: Columns) -> Columns:
    meta, param = component.meta(wire.ScaleMeta), component.param(wire.ScaleParam)
    if not meta.need_run:
        return columns
    scales = {name: scale for name, scale in param.col_scale_param.items() if columns.number(name) is not None}
    match meta.method.lower():
        case "standard_scale":
            steps: dict[str, Rescale | Above] = {name: _standard(scale) for name, scale in scales.items()}
        case "min_max_scale" if component.site.compat:
            steps = {name: _saturating(scale) for name, scale in scales.items()}
        case "min_max_scale":
            steps = {name: _min_max(scale) for name, scale in scales.items()}
        case _ if component.site.compat:
            return columns
        case _:
            raise ComponentError(f"unknown method {meta.method!r}")
    return columns.next_stage({name: _passing(step, columns.number(name)) for name, step in steps.items()})


def writes(_: Component) -> bool:
    """FATE-Serving's writes into the values that it is given, and passes these on."""
    return True


def _passing(step: Rescale | Above, column: Column | None) -> Step:
    return replace(step, passes=column is not None and column.may_be_nan)


def _standard(scale: wire.ColumnScaleParam) -> Rescale:
    return Rescale(scale.column_lower, scale.column_upper, scale.mean, scale.std or 1.0)


def _min_max(scale: wire.ColumnScaleParam) -> Rescale:
    width = scale.column_upper - scale.column_lower
    return Rescale(scale.column_lower, scale.column_upper, scale.column_lower, 1.0 if abs(width) < NARROW else width)


def _saturating(scale: wire.ColumnScaleParam) -> Above:
    """FATE-Serving: all above the upper limit is 1, and else all below the lower one 0, also where both limits are one
    or in the wrong order."""
    upper, lower = scale.column_upper, scale.column_lower
    return Above(upper, 1.0, Rescale(lower, lower, lower, 1.0) if upper < lower else _min_max(scale))
