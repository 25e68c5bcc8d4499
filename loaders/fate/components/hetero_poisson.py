"""HeteroPoisson: the expected count, times the exposure where the model names a column that rows have."""

from __future__ import annotations

from dataclasses import replace

from loaders.artifact import Link, Merge, MergeKind
from loaders.fate.component import Columns, Component, ComponentError, Model
from loaders.fate.linear import linear_model, without_nan
from loaders.loader import Servable
from loaders.servables.linear import Exposed
from loaders.signature import Signature
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"HeteroPoisson"})


def model(component: Component, columns: Columns) -> Model:
    name = component.meta(wire.PoissonModelMeta).exposure_colname
    linear = linear_model(
        component, columns, [component.param(wire.PoissonModelParam)], Merge(kind=MergeKind.SUM, link=Link.EXP)
    )
    if len(component.site.hosts) > 1:
        raise ComponentError(f"it is for one host, the model has {len(component.site.hosts)}")
    if not name or component.site.role != "guest":
        return linear
    exposure = columns.number(name)
    if exposure is None or columns.lacks(name):
        return linear

    def build(signature: Signature) -> Servable:
        return Exposed(signature, linear.build(signature), name)

    return replace(linear, columns=(*linear.columns, without_nan(exposure, columns)), build=build)
