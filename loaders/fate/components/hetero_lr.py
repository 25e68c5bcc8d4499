"""HeteroLR: logistic regression of two classes, or of more as one regression per class.

FATE-Serving answers one-vs-rest with 0.5 for everybody; here it is as offline in both modes. With secret sharing the
component has the same class, and loads when its weights were revealed.
"""

from __future__ import annotations

from loaders.artifact import Link, Merge, MergeKind
from loaders.fate.component import Columns, Component, ComponentError, Model
from loaders.fate.linear import linear_model, refuse_encrypted
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"HeteroLR", "HeteroSSHELR"})


def model(component: Component, columns: Columns) -> Model:
    param = component.param(wire.LRModelParam)
    refuse_encrypted(param.encrypted_weight, param.HasField("cipher"))
    if not (param.need_one_vs_rest or param.one_vs_rest_result.completed_models):
        return linear_model(component, columns, [param], Merge(kind=MergeKind.SUM, link=Link.SIGMOID))
    rest = param.one_vs_rest_result
    if not rest.completed_models or len(rest.completed_models) != len(rest.one_vs_rest_classes):
        raise ComponentError(
            f"{len(rest.completed_models)} models for {len(rest.one_vs_rest_classes)} classes of one-vs-rest"
        )
    for one in rest.completed_models:
        refuse_encrypted(one.encrypted_weight, one.HasField("cipher"))
    merge = Merge(kind=MergeKind.SUM, link=Link.SIGMOID, labels=tuple(rest.one_vs_rest_classes))
    return linear_model(component, columns, list(rest.completed_models), merge)
