"""HeteroLinR: linear regression."""

from __future__ import annotations

from loaders.artifact import Merge, MergeKind
from loaders.fate.component import Columns, Component, Model
from loaders.fate.linear import linear_model, refuse_encrypted
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"HeteroLinR", "HeteroSSHELinR"})


def model(component: Component, columns: Columns) -> Model:
    param = component.param(wire.LinRModelParam)
    refuse_encrypted(param.encrypted_weight, param.HasField("cipher"))
    return linear_model(component, columns, [param], Merge(kind=MergeKind.SUM))
