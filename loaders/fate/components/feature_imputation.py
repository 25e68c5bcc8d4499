"""FeatureImputation: missing values of columns replaced, each by its own value. FATE-Serving passes it by."""

from __future__ import annotations

from loaders.fate.component import Columns, Component
from loaders.fate.components.data_transform import impute
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
    return impute(columns, meta.imputer_meta.missing_value, replacements)
