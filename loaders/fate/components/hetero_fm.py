"""HeteroFM: a factorisation machine of two classes, with one host."""

from __future__ import annotations

import numpy as np

from loaders.artifact import Link, Merge, MergeKind
from loaders.fate.component import Columns, Component, ComponentError, Model
from loaders.fate.linear import used_columns
from loaders.servables.factors import FactorServable
from loaders.signature import TensorSpec
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"HeteroFM"})


def model(component: Component, columns: Columns) -> Model:
    param = component.param(wire.FMModelParam)
    if param.need_one_vs_rest or param.one_vs_rest_result.completed_models:
        raise ComponentError("one-vs-rest of factorisation machines is not served")
    if len(component.site.hosts) > 1:
        raise ComponentError(f"it is for one host, the model has {len(component.site.hosts)}")
    rank = param.embed_size
    wrong = sorted(name for name, one in param.embedding.items() if len(one.weight) != rank)
    if wrong:
        raise ComponentError(f"the embedding of {wrong[0]!r} has not the size {rank}")
    found = used_columns(component, columns, _names(param))
    weights = np.array([param.weight.get(name, 0.0) for name in found])
    factors = np.array([_embedding(param, name) for name in found]).reshape(-1, rank)
    if not (np.isfinite(weights).all() and np.isfinite(factors).all() and np.isfinite(param.intercept)):
        raise ComponentError("a weight, an embedding or the intercept is not finite")
    return Model(
        columns=tuple(found.values()),
        build=lambda signature: FactorServable(signature, weights, factors, param.intercept),
        output=TensorSpec(name="partial", dtype="float64", shape=(-1, 1 + rank)),
        merge=Merge(kind=MergeKind.FACTORS, link=Link.SIGMOID),
    )


def _names(param: wire.FMModelParam) -> list[str]:
    used = {*param.weight, *param.embedding}
    headed = dict.fromkeys(name for name in param.header if name in used)
    return [*headed, *sorted(used - headed.keys())]


def _embedding(param: wire.FMModelParam, name: str) -> list[float]:
    return list(param.embedding[name].weight) if name in param.embedding else [0.0] * param.embed_size
