"""FeatureImputation: missing values of columns replaced, each by its own value. FATE-Serving passes it by.

A list of numbers alone says that only these are missing: a value that is not there stays so.
"""

from __future__ import annotations

import math
from dataclasses import replace

from loaders.fate.component import Columns, Component
from loaders.fate.replacing import Marks, impute
from loaders.servables.program import number_in
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"FeatureImputation"})


def transform(component: Component, columns: Columns) -> Columns:
    if component.site.compat:
        return columns
    meta = component.meta(wire.FeatureImputationMeta)
    param = component.param(wire.FeatureImputationParam).imputer_param
    if not meta.need_run:
        return columns
    skipped = set(param.skip_cols)
    replacements = {name: value for name, value in param.missing_replace_value.items() if name not in skipped}
    listed = list(meta.imputer_meta.missing_value)
    numbers = [number for number in map(number_in, listed) if number is not None and not math.isnan(number)]
    marks = replace(Marks.offline(listed), missing=not numbers or len(numbers) < len(listed))
    return impute(columns, marks if listed else Marks(frozenset(), {}, True), replacements)
