"""Single components in forms that random models do not have."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message

from loaders.fate.compiling import WITHOUT_EFFECT, CompiledHalf, compile_half
from loaders.fate.component import ComponentError, Mode, Site
from loaders.fate.dsl import nodes_of
from loaders.merge import merge_rule
from loaders.signature import FeatureError
from tessera.compat import fate_model_pb2 as wire
from tests.fate_models import GUEST, HOSTS, Builder
from tests.unit.loaders.fate.halves import batch

COMPAT, STRICT = Mode.SERVING_COMPAT, Mode.STRICT_OFFLINE
Step = Callable[[Builder], None]


def compiled(mode: Mode, *steps: Step, role: str = "guest", kind: str = "HeteroLinR", **param: Any) -> CompiledHalf:
    """x + 10 y, behind the steps."""
    party = GUEST if role == "guest" else HOSTS[0]
    builder = Builder(random.Random(0), f"{role}:{party}", ["x", "y"])
    for step in steps:
        step(builder)
    message = wire.LinRModelParam if "LinR" in kind else wire.LRModelParam
    weighed = message(weight={"x": 1.0, "y": 10.0}, header=["x", "y"], **param)
    builder.add("model_0", kind, kind, wire.LinRModelMeta(), weighed)
    return compile_half(builder.finish(), Site(role, party, HOSTS[:1], mode))


def answered(half: CompiledHalf, **row: object) -> float:
    servable = half.servable()
    [[value]] = servable.predict(batch(servable, [row]))["partial"]
    return float(value)


def adding(kind: str, part: str, meta: Message, param: Message) -> Step:
    return lambda builder: builder.add("step_0", kind, part, meta, param)


def test_fate_servings_imputer_leaves_only_the_columns_that_it_imputes() -> None:
    meta, param = wire.DataIOMeta(input_format="dense"), wire.DataIOParam(header=["x", "y"])
    meta.imputer_meta.is_imputer = True
    param.imputer_param.missing_replace_value["x"] = "3"
    step = adding("DataIO", "DataIO", meta, param)
    assert [answered(compiled(mode, step), y=1.0) for mode in (COMPAT, STRICT)] == [3.0, 13.0]


@pytest.mark.parametrize(
    ("read", "rows", "imputes", "absent", "zero", "tiny"),
    [
        ("dense", "dense", False, 3.0, 1.0, 2.0),
        ("dense", "sparse", False, 3.0, 0.0, 0.0),
        ("dense", "sparse", True, 2.0, 0.0, 0.0),
        ("tag", "dense", False, 1.0, 1.0, 2.0),
        ("tag", "sparse", False, 0.0, 1.0, 2.0),
        ("tag", "sparse", True, 2.0, 1.0, 2.0),
        ("sparse", "sparse", False, 0.0, 1.0, 2.0),
    ],
)
@pytest.mark.parametrize("kind", ["bin_num", "woe"])
def test_offline_only_what_a_sparse_row_holds_gets_a_bin(
    read: str, rows: str, imputes: bool, absent: float, zero: float, tiny: float, kind: str
) -> None:
    """Rows that are read dense and written sparse hold no zeros; rows that are read sparse hold what they name."""

    def step(builder: Builder) -> None:
        meta = wire.DataIOMeta(input_format=read, output_format=rows, tag_with_value=True)
        param = wire.DataIOParam(header=["x", "y"])
        meta.imputer_meta.is_imputer = imputes
        param.imputer_param.missing_replace_value.update({"x": "1.5", "y": "1.5"})
        builder.add("read", "DataTransform", "DataTransform", meta, param)

    meta, param = wire.FeatureBinningMeta(need_run=True), wire.FeatureBinningParam(header=["x"])
    meta.transform_param.transform_cols.append(0)
    meta.transform_param.transform_type = kind
    result = param.binning_result.binning_result["x"]
    result.split_points.extend([-1.0, 0.0, 2.0])
    result.woe_array.extend([0.0, 1.0, 2.0, 3.0])
    bins = adding("HeteroFeatureBinning", "FeatureBinning", meta, param)
    half = compiled(STRICT, step, bins)
    assert [answered(half, **x, y=0) for x in ({}, {"x": 0}, {"x": 1e-9}, {"x": 1.5})] == [absent, zero, tiny, 2.0]
    assert [answered(compiled(STRICT, step), x=x, y=0) for x in (1e-9, 7)] == [0.0 if tiny == 0 else 1e-9, 7.0]


def binned_at_minus_1(builder: Builder) -> None:
    meta, param = wire.FeatureBinningMeta(need_run=True), wire.FeatureBinningParam(header=["x"])
    meta.transform_param.CopyFrom(wire.TransformMeta(transform_cols=[0], transform_type="bin_num"))
    param.binning_result.binning_result["x"].split_points.extend([-1.0, 1.0])
    builder.add("bins", "HeteroFeatureBinning", "FeatureBinning", meta, param)


def test_rows_that_lack_zeros_have_them_in_the_model_and_after_a_selection() -> None:
    def step(builder: Builder) -> None:
        meta, param = (
            wire.DataIOMeta(input_format="sparse", output_format="sparse"),
            wire.DataIOParam(header=["x", "y"]),
        )
        builder.add("read", "DataTransform", "DataTransform", meta, param)

    left = wire.FeatureSelectionParam()
    left.final_left_cols.left_cols.update({"x": True, "y": True})
    kept = adding("HeteroFeatureSelection", "FeatureSelection", wire.FeatureSelectionMeta(need_run=True), left)
    assert answered(compiled(STRICT, step, kept), y=1) == 10.0
    assert answered(compiled(STRICT, step, kept, binned_at_minus_1), y=1) == 10.0
    assert answered(compiled(STRICT, step, kept, binned_at_minus_1), x=0, y=1) == 11.0
    assert answered(compiled(STRICT, step, scaling("standard_scale")), y=1) == 9.0


def scaling(method: str) -> Step:
    param = wire.ScaleParam()
    param.col_scale_param["x"].column_upper = param.col_scale_param["x"].mean = param.col_scale_param["x"].std = 2.0
    return adding("Scale", "Scale", wire.ScaleMeta(method=method, need_run=True), param)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_method_of_a_scale_counts_in_any_case(mode: Mode) -> None:
    assert [answered(compiled(mode, scaling(f"{name}_SCALE")), x=1, y=0) for name in ("Min_Max", "STANDARD")] == [
        0.5,
        -0.5,
    ]


def test_a_scale_of_an_unknown_method_changes_nothing_for_fate_serving() -> None:
    assert answered(compiled(COMPAT, scaling("cube")), x=7, y=0) == 7.0
    with pytest.raises(ComponentError, match="unknown method 'cube'"):
        compiled(STRICT, scaling("cube"))


@pytest.mark.parametrize("mode", list(Mode))
def test_a_one_hot_that_does_not_run_leaves_its_columns(mode: Mode) -> None:
    param = wire.OneHotParam(col_map={"x": wire.ColsMap(values=["red"], transformed_headers=["x_red"])})
    assert answered(compiled(mode, adding("OneHotEncoder", "OneHot", wire.OneHotMeta(), param)), x=7, y=0) == 7.0


@pytest.mark.parametrize("kind", ["", "None"])
def test_bins_that_transform_nothing_leave_their_columns_offline(kind: str) -> None:
    meta = wire.FeatureBinningMeta(need_run=True)
    meta.transform_param.transform_cols.append(0)
    meta.transform_param.transform_type = kind
    param = wire.FeatureBinningParam(header=["x"])
    param.binning_result.binning_result["x"].split_points.extend([1.0, 2.0])
    step = adding("HeteroFeatureBinning", "FeatureBinning", meta, param)
    assert [answered(compiled(mode, step), x=7, y=0) for mode in (STRICT, COMPAT)] == [7.0, 1.0]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("role", ["guest", "host"])
def test_an_intercept_is_added_at_every_party(mode: Mode, role: str) -> None:
    assert answered(compiled(mode, role=role, intercept=0.5), x=1, y=0) == 1.5


@pytest.mark.parametrize("kind", ["HeteroLinR", "HeteroSSHELinR", "HeteroLR", "HeteroSSHELR"])
def test_secret_shared_weights_are_served_once_they_are_revealed(kind: str) -> None:
    assert answered(compiled(STRICT, kind=kind), x=1, y=1) == 11.0
    for hidden in (
        {"encrypted_weight": {"x": wire.CipherText(cipher_text="1")}},
        {"cipher": wire.Cipher(public_key=wire.CipherPublicKey(n="7"))},
    ):
        with pytest.raises(ComponentError, match="'model_0': its weights are encrypted"):
            compiled(STRICT, kind=kind, **hidden)


def read(*header: str) -> Step:
    meta = wire.DataIOMeta(input_format="dense")
    return lambda builder: builder.add("read", "DataIO", "DataIO", meta, wire.DataIOParam(header=header))


def counted(mode: Mode, exposure: str, *steps: Step, hosts: tuple[str, ...] = HOSTS[:1]) -> CompiledHalf:
    builder = Builder(random.Random(0), f"guest:{GUEST}", ["x"])
    for step in steps:
        step(builder)
    param, meta = wire.PoissonModelParam(weight={"x": 2.0}, header=["x"]), wire.PoissonModelMeta()
    meta.exposure_colname = exposure
    builder.add("model_0", "HeteroPoisson", "Poisson", meta, param)
    return compile_half(builder.finish(), Site("guest", GUEST, hosts, mode))


@pytest.mark.parametrize("mode", list(Mode))
def test_a_count_may_have_no_exposure(mode: Mode) -> None:
    assert answered(counted(mode, ""), x=0.5) == 1.0
    assert answered(counted(mode, "e", read("x")), x=0.5, e=7.0) == 1.0
    left = wire.FeatureSelectionParam()
    left.final_left_cols.left_cols.update({"x": True, "e": False})
    selected = adding("HeteroFeatureSelection", "FeatureSelection", wire.FeatureSelectionMeta(need_run=True), left)
    assert answered(counted(mode, "e", read("x", "e"), selected), x=0.5, e=7.0) == 1.0
    assert answered(counted(mode, "e", read("x", "e")), x=0.5, e=math.e) == 2.0
    with pytest.raises(FeatureError, match="'e' is an exposure"):
        answered(counted(mode, "e", read("x", "e")), x=0.5)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_count_is_for_one_host(mode: Mode) -> None:
    with pytest.raises(ComponentError, match="'model_0': it is for one host, the model has 2"):
        counted(mode, "", hosts=HOSTS)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_count_is_as_large_as_its_exposure(mode: Mode) -> None:
    builder = Builder(random.Random(0), f"guest:{GUEST}", ["x", "e"])
    param, meta = wire.PoissonModelParam(weight={"x": 2.0}, header=["x"]), wire.PoissonModelMeta(exposure_colname="e")
    builder.add("model_0", "HeteroPoisson", "Poisson", meta, param)
    half = compile_half(builder.finish(), Site("guest", GUEST, HOSTS[:1], mode))
    servable = half.servable()

    def count(exposure: float) -> float:
        partial = servable.predict(batch(servable, [{"x": 0.5, "e": exposure}]))["partial"]
        [[score]] = merge_rule(half.merge, servable)([partial, np.array([[-1.0]])])
        return float(score)

    assert [count(exposure) for exposure in (0, 1, 2.5)] == pytest.approx([0, 1, 2.5])
    for exposure in (-1.0, math.nan):
        with pytest.raises(FeatureError, match="'e' is an exposure"):
            count(exposure)


@pytest.mark.parametrize(
    ("train", "on_party", "offset"),
    [
        ({"component_parameters": {"common": {"card_0": {"offset": 1}}}}, None, 1),
        ({"algorithm_parameters": {"card_0": {"offset": 2}}}, None, 2),
        ({"component_parameters": {"role": {"guest": {"0": {"card_0": {"offset": 3}}}}}}, None, 3),
        (
            {
                "component_parameters": {
                    "common": {"card_0": {"offset": 1}},
                    "role": {"guest": {"0": {"card_0": {"offset": 3}}}, "host": {"0": {"card_0": {"offset": 4}}}},
                }
            },
            None,
            3,
        ),
        (
            {"component_parameters": {"common": {"card_0": {"offset": 1}}}},
            {"component_parameters": {"common": {"card_0": {"offset": 5}}}},
            5,
        ),
        ({}, None, None),
    ],
)
def test_parameters_of_the_training_run_are_found_where_fate_keeps_them(
    train: dict[str, Any], on_party: dict[str, Any] | None, offset: int | None
) -> None:
    pipeline = wire.Pipeline(
        inference_dsl=json.dumps({"components": {"card_0": {"CodePath": "Scorecard"}}}).encode(),
        train_runtime_conf=json.dumps(train).encode(),
        runtime_conf_on_party=b"" if on_party is None else json.dumps(on_party).encode(),
    )
    [node] = nodes_of({"pipeline/pipeline/Pipeline": pipeline.SerializeToString()}, "guest")
    assert node.settings.get("offset") == offset


@pytest.mark.parametrize("kind", sorted(WITHOUT_EFFECT))
def test_components_without_effect_are_passed_by(kind: str) -> None:
    def step(builder: Builder) -> None:
        builder.add("other_0", kind, "", None, None)

    assert answered(compiled(STRICT, scaling("min_max_scale"), step), x=1, y=1) == 10.5


def test_labels_that_were_changed_are_not_served() -> None:
    def step(builder: Builder) -> None:
        builder.add("label_transform_0", "LabelTransform", "", None, None)

    one = wire.SingleModel(weight={"x": 1.0}, header=["x"])
    rest = wire.OneVsRestResult(completed_models=[one, one], one_vs_rest_classes=["0", "1"])
    assert compiled(STRICT, kind="HeteroLR", one_vs_rest_result=rest).merge.labels == ("0", "1")
    with pytest.raises(ComponentError, match="'model_0': labels that LabelTransform has changed"):
        compiled(STRICT, step, kind="HeteroLR", one_vs_rest_result=rest)
