"""What people see of a model's components."""

from __future__ import annotations

import json

import pytest
from google.protobuf.message import Message

from loaders.fate.compiling import _kinds
from loaders.fate.describing import params_in
from tessera.compat import fate_model_pb2 as wire

PARAMS: dict[str, tuple[Message, str]] = {
    "data_transform": (wire.DataTransformParam(anonymous_header=["h"]), "anonymous_header"),
    "feature_binning": (wire.FeatureBinningParam(header=["h"]), "header"),
    "feature_imputation": (wire.FeatureImputationParam(header=["h"]), "header"),
    "feature_selection": (wire.FeatureSelectionParam(col_names=["h"]), "col_names"),
    "hetero_fm": (wire.FMModelParam(embed_size=2), "embed_size"),
    "hetero_linr": (wire.LinRModelParam(intercept=1.5), "intercept"),
    "hetero_lr": (wire.LRModelParam(need_one_vs_rest=True), "need_one_vs_rest"),
    "hetero_poisson": (wire.PoissonModelParam(intercept=1.5), "intercept"),
    "hetero_secureboost": (wire.BoostingTreeModelParam(tree_num=2), "tree_num"),
    "one_hot": (wire.OneHotParam(result_header=["h"]), "result_header"),
    "scale": (wire.ScaleParam(header=["h"]), "header"),
}
"""By the file that serves a kind; a field whose name shows that the message was read as what it is."""


@pytest.mark.parametrize("kind", sorted(_kinds()))
def test_every_component_that_is_served_shows_its_parameters(kind: str) -> None:
    part = _kinds()[kind].__name__.rpartition(".")[2]
    param, field = PARAMS.get(part, (None, ""))
    dsl = {"components": {"one_0": {"CodePath": f"{kind}Guest", "input": {}}}}
    parts = {"pipeline/pipeline/Pipeline": wire.Pipeline(inference_dsl=json.dumps(dsl).encode()).SerializeToString()}
    if param is not None:
        parts["one_0/model/SomeParam"] = param.SerializeToString()
    [(name, shown)] = params_in(parts, "guest")
    assert name == "one_0"
    assert kind == "Scorecard" or field in json.loads(shown)


def test_a_param_that_cannot_be_read_and_a_component_without_effect_show_nothing() -> None:
    dsl = {"components": {"a": {"CodePath": "HeteroLRGuest"}, "b": {"CodePath": "Intersection"}}}
    parts = {"pipeline/pipeline/Pipeline": wire.Pipeline(inference_dsl=json.dumps(dsl).encode()).SerializeToString()}
    parts.update({"a/model/XParam": b"\xff", "b/model/XParam": b""})
    assert dict(params_in(parts, "guest")) == {"a": "", "b": ""}
