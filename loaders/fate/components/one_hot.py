"""OneHotEncoder: a column becomes one column of 0 and 1 for each of its values; an unknown value is 0 in all.

Values are compared as numbers where both are numbers, else as texts. FATE-Serving knows whole numbers only, as they are
written: all else counts as 0, also 1.0 and what Scale gives; a column that the model knows another value of disappears.
"""

from __future__ import annotations

from dataclasses import replace

from loaders.fate.component import Columns, Component, ComponentError
from loaders.servables.program import (
    NAN_SENT,
    NO_TEXT,
    Above,
    Bins,
    Column,
    Fill,
    Indicator,
    Replace,
    Rescale,
    Step,
    is_whole,
    number_in,
    text_code,
)
from loaders.signature import OTHER, UNREADABLE
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"OneHotEncoder", "OneHot"})


FRACTION = 0.5
"""Stands for all that is no whole number."""
TO_ZERO = Rescale(0.0, 0.0, 0.0, 1.0)


def transform(component: Component, columns: Columns) -> Columns:
    if not component.meta(wire.OneHotMeta).need_run:
        return columns
    coded = component.param(wire.OneHotParam).col_map
    stage = columns.stage + 2
    made: dict[str, Column] = {}
    for name in sorted(coded):
        column = columns.find(name)
        if column is not None:
            column = _as_serving_reads(column, stage - 1) if component.site.compat else column
            made.update(_indicators(name, coded[name], column, stage, component.site.compat))
    kept = {name: column for name, column in columns.known.items() if name not in coded}
    words = columns.words | {value for coding in coded.values() for value in coding.values}
    return replace(columns, known={**kept, **made}, gone=columns.gone | set(coded), stage=stage, words=words)


def text_inputs(component: Component) -> frozenset[str]:
    """Columns whose values are not all numbers."""
    if component.site.compat or not component.meta(wire.OneHotMeta).need_run:
        return frozenset()
    coded = component.param(wire.OneHotParam).col_map
    return frozenset(name for name, coding in coded.items() if any(number_in(value) is None for value in coding.values))


def _indicators(name: str, coding: wire.ColsMap, column: Column, stage: int, compat: bool) -> dict[str, Column]:
    if len(coding.values) != len(coding.transformed_headers):
        raise ComponentError(
            f"column {name!r} has {len(coding.values)} values for {len(coding.transformed_headers)} columns"
        )
    if compat and not all(map(is_whole, coding.values)):
        return {}
    return {
        header: replace(column.then(stage, Indicator(text_code(value), compat, compat)), is_text=False)
        for value, header in zip(coding.values, coding.transformed_headers, strict=True)
    }


def _as_serving_reads(column: Column, stage: int) -> Column:
    if column.is_raw:
        steps = tuple((number, _with_fraction(step)) for number, step in column.steps)
        return replace(column, steps=steps, spellings={OTHER: FRACTION})
    last = next(step for _, step in reversed(column.steps) if isinstance(step, Rescale | Above | Bins))
    if isinstance(last, Bins):
        return column
    return column.spelled({"NaN": NAN_SENT, UNREADABLE: NO_TEXT}).then(stage, TO_ZERO)


def _with_fraction(step: Step) -> Step:
    return replace(step, value=FRACTION) if isinstance(step, Fill | Replace) and not step.whole else step
