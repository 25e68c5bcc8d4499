"""What cannot be served does not load, and says which component and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loaders.artifact import Merge, MergeKind
from loaders.fate.component import ComponentError, Mode, Site
from loaders.fate.export import ExportError
from loaders.fate.importing import half_of
from loaders.fate.names import FateName
from loaders.loader import LoadError
from tessera.compat import fate_model_pb2 as wire
from tests.fate_models import FateModel, Recipe, make
from tests.unit.loaders.halves import load

GUEST = "guest:9999"
NAME = FateName("m", "1")
LR, OVR, FM, TREES = (
    Recipe("lr", plain=True),
    Recipe("ovr", plain=True),
    Recipe("fm", plain=True),
    Recipe("trees", plain=True),
)
CLASSES = Recipe("trees", plain=True, classes=3)
MIX = Recipe("trees", plain=True, strategy="mix")
PIPELINE = "pipeline/pipeline/Pipeline"


def changed(recipe: Recipe, message: type, change: Callable[[Any], None], seed: int = 1) -> FateModel:
    """A model whose guest half has one message changed."""
    model = make(seed, recipe)
    parts = model.parts[GUEST]
    for name, raw in parts.items():
        if (
            name.rpartition("/")[2].endswith("Meta") == message.__name__.endswith("Meta")
            and "data_tr" not in name
            and (name == PIPELINE) == (message is wire.Pipeline)
        ):
            part = message.FromString(raw)
            change(part)
            parts[name] = part.SerializeToString()
    return model


def refused(model: FateModel, text: str) -> None:
    with pytest.raises((ComponentError, ExportError), match=text):
        half_of(model.parts[GUEST], NAME, Site("guest", "9999", model.hosts, Mode.STRICT_OFFLINE))


def dsl(change: Callable[[dict[str, Any]], object]) -> Callable[[Any], None]:
    def apply(pipeline: Any) -> None:
        document = json.loads(pipeline.inference_dsl)
        change(document["components"])
        pipeline.inference_dsl = json.dumps(document).encode()

    return apply


def encrypted(param: Any) -> None:
    param.encrypted_weight["g0"].cipher_text = "1234"


def component(**fields: Any) -> Callable[[Any], None]:
    return dsl(lambda components: components.update({"other_0": {"input": {"data": {"data": ["args.x"]}}, **fields}}))


@pytest.mark.parametrize(
    ("recipe", "message", "change", "text"),
    [
        (LR, wire.LRModelParam, encrypted, "'heterologisticregression_0': its weights are encrypted"),
        (
            LR,
            wire.LRModelParam,
            lambda param: param.cipher.public_key.CopyFrom(wire.CipherPublicKey(n="7")),
            "encrypted",
        ),
        (OVR, wire.LRModelParam, lambda param: encrypted(param.one_vs_rest_result.completed_models[0]), "encrypted"),
        (OVR, wire.LRModelParam, lambda param: param.one_vs_rest_result.one_vs_rest_classes.pop(), "models for"),
        (LR, wire.LRModelParam, lambda param: param.weight.update(g0=float("nan")), "not finite"),
        (FM, wire.FMModelParam, lambda param: setattr(param, "need_one_vs_rest", True), "one-vs-rest of factorisation"),
        (
            FM,
            wire.FMModelParam,
            lambda param: param.embedding["g1"].weight.append(1.0),
            "embedding of 'g1' has not the size",
        ),
        (
            TREES,
            wire.BoostingTreeModelParam,
            lambda param: param.trees_[0].tree_[0].mo_weight.append(1.0),
            "multi_output",
        ),
        (TREES, wire.BoostingTreeModelParam, lambda param: param.ClearField("trees_"), "it has no trees"),
        (TREES, wire.BoostingTreeModelParam, lambda param: param.trees_.add(), "tree 4 has no nodes"),
        (
            TREES,
            wire.BoostingTreeModelParam,
            lambda param: setattr(param, "num_classes", 3),
            "3 classes with 1 trees each",
        ),
        (
            CLASSES,
            wire.BoostingTreeModelParam,
            lambda param: param.classes_.pop(),
            "'hetero_secure_boost_0': it has 3 classes and 2 names of classes",
        ),
        (CLASSES, wire.BoostingTreeModelParam, lambda param: param.classes_.append("x"), "3 classes and 4 names"),
        (TREES, wire.BoostingTreeModelParam, lambda param: param.init_score.append(1.0), "2 initial scores for 1"),
        (MIX, wire.BoostingTreeModelParam, lambda param: param.tree_plan.append("0_-1"), "a plan for 5"),
        (MIX, wire.BoostingTreeModelParam, lambda param: param.ClearField("tree_plan"), "of which nothing is known"),
        (
            LR,
            wire.Pipeline,
            component(module="HeteroNN", CodePath="x/HeteroNNGuest"),
            "'other_0': components of class 'HeteroNN'",
        ),
        (LR, wire.Pipeline, component(module="HomoLR"), "'other_0': components of class 'HomoLR' are not served"),
        (LR, wire.Pipeline, component(module="ColumnExpand"), "'other_0': components of class 'ColumnExpand'"),
        (LR, wire.Pipeline, component(CodePath="x/HeteroLRHost"), "'other_0': it is of the host"),
        (LR, wire.Pipeline, component(CodePath="HeteroLRGuest"), "there is a model already|the export has no Param"),
        (LR, wire.Pipeline, component(CodePath="Scale"), "'other_0': the export has no Meta"),
        (LR, wire.Pipeline, dsl(lambda components: components.clear()), "has no components; deploy the model"),
        (
            LR,
            wire.Pipeline,
            dsl(lambda components: components.update(a={"module": "Reader", "input": {"data": {"data": ["b.x"]}}})),
            "takes data from 'b'",
        ),
        (
            LR,
            wire.Pipeline,
            dsl(lambda components: components.update(a={"module": "Reader", "input": {"data": {"data": ["a.x"]}}})),
            "lead back to themselves",
        ),
        (LR, wire.Pipeline, lambda pipeline: setattr(pipeline, "inference_dsl", b"{"), "inference_dsl is not JSON"),
    ],
)
def test_a_guest_half_says_why_it_is_not_served(recipe: Recipe, message: type, change, text: str) -> None:
    refused(changed(recipe, message, change), text)


@pytest.mark.parametrize(
    ("kind", "meta", "param", "text"),
    [
        ("Scale", wire.ScaleMeta(method="cube", need_run=True), wire.ScaleParam(), "'t_0': unknown method 'cube'"),
        (
            "HeteroFeatureBinning",
            wire.FeatureBinningMeta(need_run=True, transform_param=wire.TransformMeta(transform_type="rank")),
            wire.FeatureBinningParam(),
            "'t_0': unknown transform_type 'rank'",
        ),
        (
            "HeteroFeatureBinning",
            wire.FeatureBinningMeta(need_run=True, transform_param=wire.TransformMeta(transform_type="woe")),
            wire.FeatureBinningParam(multi_class_result=wire.MultiClassResult(labels=["a", "b", "c"])),
            "more than two classes are not served",
        ),
        (
            "HeteroFeatureBinning",
            wire.FeatureBinningMeta(
                need_run=True, transform_param=wire.TransformMeta(transform_type="woe", transform_cols=[0])
            ),
            wire.FeatureBinningParam(
                header=["g0"],
                binning_result=wire.FeatureBinningResult(
                    binning_result={"g0": wire.IVParam(split_points=[1.0, 2.0], woe_array=[0.5])}
                ),
            ),
            "column 'g0' has 2 bins and 1 weights of evidence",
        ),
        (
            "OneHotEncoder",
            wire.OneHotMeta(need_run=True),
            wire.OneHotParam(col_map={"g0": wire.ColsMap(values=["1", "2"], transformed_headers=["a"])}),
            "column 'g0' has 2 values for 1 columns",
        ),
        (
            "HeteroFeatureSelection",
            wire.FeatureSelectionMeta(need_run=True),
            wire.FeatureSelectionParam(),
            "'heterologisticregression_0': no component before it gives column 'g0'",
        ),
        (
            "DataIO",
            wire.DataIOMeta(imputer_meta=wire.ImputerMeta(is_imputer=True)),
            wire.DataIOParam(
                header=["g0", "g1", "g2", "g3", "g4"],
                imputer_param=wire.ImputerParam(missing_replace_value={"g3": "unknown"}),
            ),
            "'heterologisticregression_0': column 'g3' holds texts, and it computes with them",
        ),
    ],
)
def test_a_component_before_the_model_says_why_it_is_not_served(kind: str, meta, param, text: str) -> None:
    model = make(1, LR)
    model.parts[GUEST] |= {"t_0/m/XMeta": meta.SerializeToString(), "t_0/m/XParam": param.SerializeToString()}

    def before(components: dict[str, Any]) -> None:
        components["t_0"] = {"CodePath": kind}
        components["heterologisticregression_0"]["input"]["data"] = {"data": ["t_0.data"]}

    refused(_with_dsl(model, before), text)


def test_points_are_made_of_a_probability_only() -> None:
    def card(components: dict[str, Any]) -> None:
        components["card_0"] = {"CodePath": "Scorecard", "input": {"data": {"data": ["args.data"]}}}

    refused(_with_dsl(make(1, Recipe("linr", plain=True)), card), "'card_0': .* the model gives none")


def test_there_is_one_model() -> None:
    model = make(1, LR)
    model.parts[GUEST] |= {
        name.replace("heterologisticregression_0", "lr_1"): raw for name, raw in model.parts[GUEST].items()
    }
    refused(
        _with_dsl(model, lambda components: components.update(lr_1={"CodePath": "HeteroLRGuest"})),
        "'lr_1': there is a model already, 'heterologisticregression_0'",
    )
    refused(
        _with_dsl(make(1, LR), lambda c: (c.clear(), c.update(r={"module": "Reader"}))), "has no model that is served"
    )


def test_factorisation_machines_have_one_host() -> None:
    refused(make(1, Recipe("fm", hosts=2, plain=True)), "it is for one host, the model has 2")


def test_parts_that_are_no_messages_are_refused() -> None:
    model = make(1, LR)
    name = next(name for name in model.parts[GUEST] if name.endswith("Param"))
    model.parts[GUEST][name] = b"\xff"
    refused(model, "its Param is no LRModelParam")
    model.parts[GUEST][PIPELINE] = b"\xff"
    refused(model, "is no Pipeline")


def test_a_tree_of_a_party_that_is_not_there_is_refused() -> None:
    model = make(1, Recipe("trees", hosts=2, plain=True))
    model.hosts = model.hosts[:1]
    refused(model, r"'hetero_secure_boost_0': tree \d: node \d+ is of 'host:10001', no party of the model")
    mixed = make(1, Recipe("trees", hosts=2, plain=True, strategy="mix"))
    mixed.hosts = mixed.hosts[:1]
    refused(mixed, "is host 10001's, and the model has no such host")


def test_trees_of_columns_that_fate_serving_loses_do_not_load_for_it() -> None:
    models = [make(seed, Recipe("trees", texts=True)) for seed in range(8)]
    with pytest.raises(ComponentError, match="no component before it gives column 'g4_"):
        for model in models:
            half_of(model.parts[GUEST], NAME, Site("guest", "9999", model.hosts, Mode.SERVING_COMPAT))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"preprocess": []}, "preprocess must be one step"),
        ({"preprocess": [{"kind": "fate", "mode": "best"}]}, "preprocess must be one step"),
        ({"inputs": ()}, "other inputs or outputs"),
        ({"merge": Merge(kind=MergeKind.SUM)}, "another merge"),
    ],
)
def test_a_manifest_that_says_something_else_than_its_parts_is_refused(tmp_path: Path, changes, text: str) -> None:
    model = make(1, Recipe("lr", hosts=0, plain=True))
    manifest, files = half_of(model.parts[GUEST], NAME, Site("guest", "9999", (), Mode.STRICT_OFFLINE))
    manifest = msgspec.structs.replace(manifest, identity=None)
    assert load(tmp_path / "good", manifest, files)
    with pytest.raises(LoadError, match=text):
        load(tmp_path, manifest, files, **changes)


def _with_dsl(model: FateModel, change: Callable[[dict[str, Any]], object]) -> FateModel:
    pipeline = wire.Pipeline.FromString(model.parts[GUEST][PIPELINE])
    dsl(change)(pipeline)
    model.parts[GUEST][PIPELINE] = pipeline.SerializeToString()
    return model
