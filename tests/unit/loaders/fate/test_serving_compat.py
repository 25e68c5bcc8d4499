"""Single values through single components, as FATE-Serving 2.1.7 computes them and as FATE does offline."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from loaders.fate.compiling import compile_half
from loaders.fate.component import ComponentError, Mode, Site
from loaders.signature import FeatureError
from tessera.compat import fate_model_pb2 as wire
from tests.fate_models import GUEST, Builder
from tests.unit.loaders.fate.halves import batch

SITE = f"guest:{GUEST}"


def scaled(builder: Builder, lower: float, upper: float, method: str = "min_max_scale") -> None:
    param = wire.ScaleParam(header=["x"])
    scale = param.col_scale_param["x"]
    scale.column_lower, scale.column_upper, scale.std = lower, upper, 1.0
    builder.add("feature_scale_0", "Scale", "Scale", wire.ScaleMeta(method=method, need_run=True), param)


def binned(builder: Builder) -> None:
    meta = wire.FeatureBinningMeta(need_run=True)
    meta.transform_param.transform_cols.append(0)
    meta.transform_param.transform_type = "bin_num"
    param = wire.FeatureBinningParam(header=["x"])
    param.binning_result.binning_result["x"].split_points.extend([0.5, 1.5, 2.5])
    builder.add("hetero_feature_binning_0", "HeteroFeatureBinning", "FeatureBinning", meta, param)


def imputed(builder: Builder, replacement: str, *markers: str) -> None:
    meta, param = wire.DataIOMeta(input_format="dense"), wire.DataIOParam(header=["x"])
    meta.imputer_meta.is_imputer = True
    meta.imputer_meta.missing_value.extend(markers)
    param.imputer_param.missing_replace_value["x"] = replacement
    builder.add("dataio_0", "DataIO", "DataIO", meta, param)


def listed(builder: Builder, *outliers: str) -> None:
    """Outliers become 5; there is no imputer."""
    meta, param = wire.DataIOMeta(input_format="dense"), wire.DataIOParam(header=["x"])
    meta.outlier_meta.is_outlier = True
    meta.outlier_meta.outlier_value.extend(outliers)
    param.outlier_param.outlier_replace_value["x"] = "5"
    builder.add("dataio_0", "DataIO", "DataIO", meta, param)


def filled_in(builder: Builder, *markers: str) -> None:
    meta, param = wire.FeatureImputationMeta(need_run=True), wire.FeatureImputationParam(header=["x"])
    meta.imputer_meta.missing_value.extend(markers)
    param.imputer_param.missing_replace_value["x"] = "5"
    builder.add("feature_imputation_0", "FeatureImputation", "FeatureImputation", meta, param)


def one_hot(builder: Builder) -> None:
    """The sum of the indicators is 10 for 0, 20 for 1, 30 for 2, else 0."""
    meta, param = wire.OneHotMeta(transform_col_names=["x"], need_run=True), wire.OneHotParam()
    param.col_map["x"].values.extend(["0", "1", "2"])
    param.col_map["x"].transformed_headers.extend(["x_0", "x_1", "x_2"])
    builder.add("one_hot_0", "OneHotEncoder", "OneHot", meta, param)
    builder.columns = ["x_0", "x_1", "x_2"]


def sent(value: object, mode: Mode, *steps: Callable[[Builder], None]) -> float:
    """The sum of a linear model of one column, or of its indicators."""
    builder = Builder(random.Random(0), SITE, ["x"])
    for step in steps:
        step(builder)
    weights = dict.fromkeys(builder.columns, 1.0) if builder.columns == ["x"] else {"x_0": 10.0, "x_1": 20.0, "x_2": 30}
    param = wire.LinRModelParam(weight=weights, header=list(weights))
    builder.add("linr_0", "HeteroLinR", "HeteroLinearRegression", wire.LinRModelMeta(), param)
    servable = compile_half(builder.finish(), Site("guest", GUEST, (), mode)).servable()
    [[score]] = servable.predict(batch(servable, [{} if value is None else {"x": value}]))["partial"]
    return float(score)


def found(value: object, mode: Mode, *steps: Callable[[Builder], None]) -> float | None:
    """The same; None where it is missing."""
    try:
        return sent(value, mode, *steps)
    except FeatureError:
        return None


COMPAT, STRICT = Mode.SERVING_COMPAT, Mode.STRICT_OFFLINE


@pytest.mark.parametrize(
    ("value", "compat", "strict"),
    [
        (1, 20.0, 20.0),
        (1.0, 10.0, 20.0),
        ("1", 20.0, 20.0),
        ("1.0", 10.0, 20.0),
        ("+2", 30.0, 30.0),
        (2.5, 10.0, 0.0),
        (7, 0.0, 0.0),
        (7.0, 10.0, 0.0),
        ("NaN", 10.0, 0.0),
    ],
)
def test_one_hot_knows_whole_numbers_as_they_are_written(value: object, compat: float, strict: float) -> None:
    assert (sent(value, COMPAT, one_hot), sent(value, STRICT, one_hot)) == (compat, strict)


def test_one_hot_takes_any_other_text_for_0() -> None:
    assert sent("abc", COMPAT, one_hot) == 10.0


def test_one_hot_of_scaled_numbers_is_that_of_0_and_of_bins_theirs() -> None:
    def wide(builder: Builder) -> None:
        scaled(builder, 0.0, 1.0)

    assert (sent(1, COMPAT, wide, one_hot), sent(1, STRICT, wide, one_hot)) == (10.0, 20.0)
    assert (sent(None, COMPAT, wide, one_hot), sent(1, COMPAT, wide, binned, one_hot)) == (0.0, 20.0)
    assert (sent(2.0, COMPAT, binned, one_hot), sent(2.0, STRICT, binned, one_hot)) == (30.0, 30.0)


@pytest.mark.parametrize(("replacement", "compat"), [("1", 20.0), ("1.0", 10.0), ("2.5", 10.0)])
def test_one_hot_of_a_value_that_was_put_in(replacement: str, compat: float) -> None:
    def filled(builder: Builder) -> None:
        imputed(builder, replacement, "none", "-999")

    for value in (None, "none", -999):
        assert sent(value, COMPAT, filled, one_hot) == compat


@pytest.mark.parametrize(
    ("markers", "value", "compat", "strict"),
    [
        (("none",), None, 5.0, None),
        (("none",), "NaN", 0.0, None),
        (("none",), "none", 5.0, 5.0),
        (("none",), "", None, None),
        (("none", "-999"), -999, 5.0, 5.0),
        (("", "none"), None, 5.0, 5.0),
        (("", "none"), "NaN", 0.0, 5.0),
        (("", "none"), "", 5.0, 5.0),
        (("nan",), None, 5.0, 5.0),
        (("nan",), "NaN", 5.0, 5.0),
        (("nan",), "", None, None),
        ((), None, 5.0, 5.0),
        ((), "null", None, 5.0),
    ],
)
def test_what_is_not_there_is_replaced_by_fate_serving_and_offline_where_it_is_listed(
    markers: tuple[str, ...], value: object, compat: float | None, strict: float | None
) -> None:
    def step(builder: Builder) -> None:
        imputed(builder, "5", *markers)

    assert (found(value, COMPAT, step), found(value, STRICT, step)) == (compat, strict)


def of_tags(builder: Builder, with_value: bool, *markers: str) -> None:
    meta, param = wire.DataIOMeta(input_format="tag", tag_with_value=with_value), wire.DataIOParam(header=["x"])
    meta.imputer_meta.is_imputer = True
    meta.imputer_meta.missing_value.extend(markers)
    param.imputer_param.missing_replace_value["x"] = "5"
    builder.add("dataio_0", "DataIO", "DataIO", meta, param)


def test_tags_without_values_have_no_imputer_offline() -> None:
    for with_value, strict in ((True, 5.0), (False, 0.0)):

        def step(builder: Builder, with_value: bool = with_value) -> None:
            of_tags(builder, with_value, "", "none")

        assert (sent(None, COMPAT, step), sent(None, STRICT, step)) == (5.0, strict)


def test_a_row_of_tags_without_a_mark_for_what_it_leaves_out_fails_in_fate_serving() -> None:
    def step(builder: Builder) -> None:
        of_tags(builder, True, "none")

    assert found(None, STRICT, step) is None
    with pytest.raises(ComponentError, match=r"'dataio_0': FATE-Serving puts .*mode strict_offline"):
        sent(1, COMPAT, step)


def test_nan_outlives_a_scale() -> None:
    def wide(builder: Builder) -> None:
        scaled(builder, 0.0, 1.0)

    def standard(builder: Builder) -> None:
        scaled(builder, 0.0, 1.0, "standard_scale")

    for step in (wide, standard):
        assert [sent(value, COMPAT, step, binned) for value in ("NaN", 9, None)] == [2.0, 1.0, 0.0]
        assert [sent(value, COMPAT, step, one_hot) for value in ("NaN", "abc", 9, None)] == [10.0, 10.0, 10.0, 0.0]
        assert (sent("NaN", COMPAT, step), sent(1.0, COMPAT, step)) == (0.0, 1.0)


@pytest.mark.parametrize("value", ["abc", "", "1,5", "1_0", "d", True, [1], {}])
def test_what_is_no_number_is_lost_at_bins_and_refused_elsewhere(value: object) -> None:
    def wide(builder: Builder) -> None:
        scaled(builder, 0.0, 1.0)

    def filled(builder: Builder) -> None:
        imputed(builder, "5", "none")

    for steps in ((binned,), (wide, binned), (filled, binned), (binned, one_hot)):
        assert sent(value, COMPAT, *steps) == 0.0
        assert found(value, STRICT, *steps) is None
    assert found(value, COMPAT) is found(value, COMPAT, wide) is None


def test_nan_is_in_the_last_bin_and_an_absent_value_in_none() -> None:
    assert (sent("NaN", COMPAT, binned), sent(None, COMPAT, binned)) == (2.0, 0.0)
    assert sent("NaN", STRICT, binned) == 3.0


@pytest.mark.parametrize("text", [" NaN ", "-NaN", "+NaN"])
def test_nan_may_have_blanks_and_a_sign(text: str) -> None:
    assert (sent(text, COMPAT, binned), sent(text, STRICT, binned)) == (2.0, 3.0)


def test_nan_that_is_listed_as_missing_is_replaced() -> None:
    for markers, bin_ in ((("nan",), 1.0), ((), 2.0)):

        def filled(builder: Builder, markers: tuple[str, ...] = markers) -> None:
            imputed(builder, "1", *markers)

        assert sent("NaN", COMPAT, filled, binned) == bin_


@pytest.mark.parametrize(
    ("lower", "upper", "value", "compat"),
    [(0.0, 2.0, 1.0, 0.5), (0.0, 2.0, 3.0, 1.0), (1.0, 1.0, 3.0, 1.0), (1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.0)]
    + [(2.0, 1.0, value, float(value > 1)) for value in (0.0, 1.0, 1.5, 2.0, 3.0)],
)
def test_min_max_scale_also_where_its_limits_are_in_the_wrong_order(
    lower: float, upper: float, value: float, compat: float
) -> None:
    def step(builder: Builder) -> None:
        scaled(builder, lower, upper)

    assert sent(value, COMPAT, step) == compat
    assert math.isfinite(sent(value, STRICT, step))


@pytest.mark.parametrize(
    ("outliers", "value", "compat", "strict"),
    [
        (("", "none", "null", "na", "None", "nan"), None, 0.0, 5.0),
        (("", "none", "null", "na", "None", "nan"), "", 5.0, 5.0),
        (("", "none", "null", "na", "None", "nan"), "none", 5.0, 5.0),
        (("nan",), "NaN", 5.0, 5.0),
        (("nan",), None, 0.0, 5.0),
        (("none",), "NaN", 0.0, None),
        ((), None, 0.0, 5.0),
        ((), "none", None, 5.0),
        (("-999",), -999, 5.0, 5.0),
        (("-999",), None, 0.0, None),
    ],
)
def test_what_is_missing_is_an_outlier_offline_where_it_is_listed(
    outliers: tuple[str, ...], value: object, compat: float | None, strict: float | None
) -> None:
    def step(builder: Builder) -> None:
        listed(builder, *outliers)

    assert (found(value, COMPAT, step), found(value, STRICT, step)) == (compat, strict)


@pytest.mark.parametrize(
    ("markers", "missing", "marked"),
    [(("nan", "7"), 5.0, 5.0), ((), 5.0, 7.0), (("none",), 5.0, 7.0), (("7", "-1.5"), None, 5.0)],
)
def test_a_list_of_numbers_leaves_missing_what_is_not_there(
    markers: tuple[str, ...], missing: float | None, marked: float
) -> None:
    def step(builder: Builder) -> None:
        filled_in(builder, *markers)

    assert (found(None, STRICT, step), found(7, STRICT, step)) == (missing, marked)


@pytest.mark.parametrize("text", ["", "NULL", "null", "NA"])
def test_some_texts_are_missing_offline_without_an_imputer(text: str) -> None:
    def step(builder: Builder) -> None:
        meta = wire.DataIOMeta(input_format="dense")
        builder.add("dataio_0", "DataIO", "DataIO", meta, wire.DataIOParam(header=["x"]))

    assert (sent(text, STRICT, step, binned), sent(None, STRICT, step, binned)) == (3.0, 3.0)
    assert found(text, COMPAT, step) is None


def test_the_bins_are_those_of_the_training() -> None:
    def step(builder: Builder) -> None:
        binned(builder)
        name = "hetero_feature_binning_0/model/FeatureBinningParam"
        param = wire.FeatureBinningParam.FromString(builder.parts[name])
        param.transform_binning_result.binning_result["x"].split_points.extend([-5.0, -4.0, -3.0])
        builder.parts[name] = param.SerializeToString()

    assert (sent(1.0, STRICT, step), sent(1.0, COMPAT, step)) == (1.0, 1.0)


def test_an_outlier_of_a_column_without_a_replacement_is_missing() -> None:
    def step(builder: Builder) -> None:
        listed(builder, "777")
        param = wire.DataIOParam.FromString(builder.parts["dataio_0/model/DataIOParam"])
        param.outlier_param.outlier_replace_value.clear()
        builder.parts["dataio_0/model/DataIOParam"] = param.SerializeToString()

    for mode, missing in ((STRICT, 3.0), (COMPAT, 0.0)):
        assert [sent(value, mode, step, binned) for value in (777, 1.0)] == [missing, 1.0]


@pytest.mark.parametrize(
    ("marker", "text", "compat", "strict"),
    [
        ("none", "none", 5.0, 5.0),
        ("none", "NONE", 5.0, None),
        ("none", "None", 5.0, None),
        ("None", "None", None, 5.0),
        ("None", "none", None, None),
    ],
)
def test_fate_serving_sees_texts_in_lower_case(
    marker: str, text: str, compat: float | None, strict: float | None
) -> None:
    def step(builder: Builder) -> None:
        imputed(builder, "5", marker)

    assert (found(text, COMPAT, step), found(text, STRICT, step)) == (compat, strict)
