"""HeteroFeatureSelection: only the columns that were left."""

from __future__ import annotations

from loaders.fate.component import Columns, Component
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"HeteroFeatureSelection"})
TAKES_ROWS_WITHOUT_ZEROS = True


def transform(component: Component, columns: Columns) -> Columns:
    if not component.meta(wire.FeatureSelectionMeta).need_run:
        return columns
    left = component.param(wire.FeatureSelectionParam).final_left_cols.left_cols
    return columns.only(name for name in sorted(left) if left[name])
