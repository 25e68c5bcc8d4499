"""HeteroPoisson: the expected count, times the exposure where the model names a column of it."""

from __future__ import annotations

from dataclasses import replace

from loaders.artifact import Link, Merge, MergeKind
from loaders.fate.component import Columns, Component, ComponentError, Model
from loaders.fate.linear import linear_model
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
    if not name or component.site.role != "guest":
        return linear
    exposure = columns.number(name)
    if exposure is None:
        raise ComponentError(f"no component before it gives the exposure, column {name!r}")

    def build(signature: Signature) -> Servable:
        return Exposed(signature, linear.build(signature), name)

    return replace(linear, columns=(*linear.columns, exposure), build=build)
