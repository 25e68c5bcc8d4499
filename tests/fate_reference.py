"""FATE's online components, written down as they are described, one row and one value at a time.

Nothing here is shared with the loader. `offline` is what FATE computes offline, `serving` what FATE-Serving computes.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tessera.compat import fate_model_pb2 as wire

Row = dict[str, Any]
"""Values by column: numbers, texts, or nothing at all."""

MESSAGES = {
    "DataIO": (wire.DataIOMeta, wire.DataIOParam),
    "DataTransform": (wire.DataIOMeta, wire.DataIOParam),
    "FeatureImputation": (wire.FeatureImputationMeta, wire.FeatureImputationParam),
    "Scale": (wire.ScaleMeta, wire.ScaleParam),
    "HeteroFeatureBinning": (wire.FeatureBinningMeta, wire.FeatureBinningParam),
    "HeteroFeatureSelection": (wire.FeatureSelectionMeta, wire.FeatureSelectionParam),
    "OneHotEncoder": (wire.OneHotMeta, wire.OneHotParam),
    "HeteroLR": (wire.LRModelMeta, wire.LRModelParam),
    "HeteroLinR": (wire.LinRModelMeta, wire.LinRModelParam),
    "HeteroPoisson": (wire.PoissonModelMeta, wire.PoissonModelParam),
    "HeteroFM": (wire.FMModelMeta, wire.FMModelParam),
    "HeteroSecureBoostingTree": (wire.BoostingTreeModelMeta, wire.BoostingTreeModelParam),
}


class Missing(Exception):
    """A number is missing where offline there has to be one."""


def components(parts: Mapping[str, bytes]) -> list[tuple[str, Any, Any, dict[str, Any]]]:
    """Kind, meta, param and settings, in the order of the pipeline, which is that of the DSL in these tests."""
    pipeline = wire.Pipeline.FromString(parts["pipeline/pipeline/Pipeline"])
    settings = json.loads(pipeline.train_runtime_conf)["component_parameters"]["common"]
    found = []
    for name, one in json.loads(pipeline.inference_dsl)["components"].items():
        meta = param = None
        if one["module"] in MESSAGES:
            kinds = MESSAGES[one["module"]]
            [meta] = [
                kinds[0].FromString(raw)
                for key, raw in parts.items()
                if key.startswith(f"{name}/") and key.endswith("Meta")
            ]
            [param] = [
                kinds[1].FromString(raw)
                for key, raw in parts.items()
                if key.startswith(f"{name}/") and key.endswith("Param")
            ]
        found.append((one["module"], meta, param, settings.get(name, {})))
    return found


def score(model: Any, rows: Mapping[str, Row], serving: bool) -> Any:
    """A number, or one per class. Raises Missing."""
    halves = {}
    kind, meta, param, card = "", None, None, None
    for site in model.sites:
        row, zeros = dict(rows[site]), []
        for kind_, meta_, param_, settings_ in components(model.parts[site]):
            if kind_ == "Scorecard":
                card = settings_
            elif kind_.startswith(("HeteroLR", "HeteroLinR", "HeteroPoisson", "HeteroFM", "HeteroSecure")):
                row = {**dict.fromkeys(zeros, 0.0), **row}
                halves[site] = (row, meta_, param_)
                if site.startswith("guest"):
                    kind, meta, param = kind_, meta_, param_
            else:
                if kind_.startswith("Data") and not serving and meta_.output_format == "sparse":
                    zeros = param_.header
                row = (_serving if serving else _offline)(kind_, meta_, param_, row)
    result = _model(kind, meta, param, halves, serving)
    if card is None:
        return result
    return _points(result, {}, True) if serving else _points(result, card, False)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(value: Any) -> float:
    """As Java reads it. Raises Missing for what is no number."""
    if not isinstance(value, str):
        return float(value)
    text = value.strip()
    if text[-1:] in "fFdD" and not text.lower().endswith("nd"):
        text = text[:-1]
    try:
        return float.fromhex(text) if "0x" in text.lower() else float(text)
    except ValueError:
        raise Missing(value) from None


def _typed(text: str) -> Any:
    try:
        return _number(text)
    except Missing:
        return text


DEFAULT = ["", "none", "null", "na", "None", "nan"]


def _marked(value: Any, listed: Any) -> bool:
    """Offline: what is not there is "" or NaN."""
    listed = listed or DEFAULT
    return "" in listed or "nan" in listed if _absent(value) else _text(value) in listed


def _absent(value: Any) -> bool:
    return value is None or value == "NaN" or (isinstance(value, float) and math.isnan(value))


def _java(value: Any) -> str:
    """As FATE-Serving sees a value of a request: 1 is "1", and 1.0 is "1.0"."""
    return value if isinstance(value, str) else repr(value)


def _offline(kind: str, meta: Any, param: Any, row: Row) -> Row:
    match kind:
        case "DataIO" | "DataTransform":
            return _offline_data(meta, param, row)
        case "FeatureImputation":
            return _offline_imputation(meta, param, row)
        case "Scale":
            return _scale(meta, param, row, False)
        case "HeteroFeatureBinning":
            return _offline_binning(meta, param, row)
        case "HeteroFeatureSelection":
            return _selection(meta, param, row)
        case "OneHotEncoder":
            return _offline_one_hot(meta, param, row)
    raise AssertionError(kind)


def _offline_data(meta: Any, param: Any, row: Row) -> Row:
    done: Row = {}
    imputes = meta.imputer_meta.is_imputer and (meta.input_format == "dense" or meta.tag_with_value)
    for name in param.header:
        value = row.get(name, math.nan)
        if imputes:
            if _marked(value, meta.imputer_meta.missing_value):
                value = _typed(param.imputer_param.missing_replace_value[name])
        elif _absent(value) and meta.input_format != "dense":
            if meta.output_format == "sparse":
                continue
            value = 0.0
        if meta.outlier_meta.is_outlier and _marked(value, meta.outlier_meta.outlier_value):
            value = _typed(param.outlier_param.outlier_replace_value[name])
        if meta.input_format == "dense" and meta.output_format == "sparse" and _is_zero(value):
            continue
        done[name] = value
    return done


def _is_zero(value: Any) -> bool:
    return not _absent(value) and not isinstance(_typed(_text(value)), str) and abs(_number(value)) < 1e-8


def _offline_imputation(meta: Any, param: Any, row: Row) -> Row:
    done = dict(row)
    if not meta.need_run:
        return done
    listed = meta.imputer_meta.missing_value
    fills = not listed or any(not text.lstrip("-").isdigit() for text in listed)
    for name, replacement in param.imputer_param.missing_replace_value.items():
        if name in param.imputer_param.skip_cols or name not in row:
            continue
        if (fills and _absent(row[name])) or _text(row[name]) in meta.imputer_meta.missing_value:
            done[name] = _typed(replacement)
    return done


def _scale(meta: Any, param: Any, row: Row, serving: bool) -> Row:
    done = dict(row)
    if not meta.need_run:
        return done
    for name, scale in param.col_scale_param.items():
        if name not in row or _absent(row[name]):
            continue
        if isinstance(_typed(_text(row[name])), str):
            continue
        value, lower, upper = _number(row[name]), scale.column_lower, scale.column_upper
        limited = min(max(value, lower), upper)
        if meta.method == "standard_scale":
            done[name] = (limited - scale.mean) / (scale.std if scale.std != 0 else 1)
            continue
        width = upper - lower
        divisor = 1 if abs(width) < 1e-6 else width
        if serving:
            done[name] = 1.0 if value > upper else 0.0 if value < lower or width < 0 else (value - lower) / divisor
        else:
            done[name] = (limited - lower) / divisor
    return done


def _offline_binning(meta: Any, param: Any, row: Row) -> Row:
    done = dict(row)
    if not meta.need_run or not meta.transform_param.transform_type:
        return done
    for place in meta.transform_param.transform_cols:
        name = param.header[place]
        if name not in row or name not in param.binning_result.binning_result:
            continue
        result = param.binning_result.binning_result[name]
        splits, value = list(result.split_points), row[name]
        if not _absent(value) and isinstance(_typed(_text(value)), str):
            continue
        number = len(splits) if _absent(value) else bisect.bisect_left(splits[:-1], _number(value))
        if meta.transform_param.transform_type == "bin_num":
            done[name] = float(number)
        else:
            done[name] = result.woe_array[number] if number < len(result.woe_array) else math.nan
    return done


def _selection(meta: Any, param: Any, row: Row) -> Row:
    if not meta.need_run:
        return dict(row)
    left = param.final_left_cols.left_cols
    return {name: value for name, value in row.items() if left.get(name)}


def _offline_one_hot(meta: Any, param: Any, row: Row) -> Row:
    done = {name: value for name, value in row.items() if name not in param.col_map}
    for name, coding in param.col_map.items():
        for value, header in zip(coding.values, coding.transformed_headers, strict=True):
            given = row.get(name, math.nan)
            done[header] = 1.0 if not _absent(given) and _typed(_text(given)) == _typed(value) else 0.0
    return done


def _serving(kind: str, meta: Any, param: Any, row: Row) -> Row:
    match kind:
        case "DataIO" | "DataTransform":
            return _serving_data(meta, param, row)
        case "FeatureImputation":
            return dict(row)
        case "Scale":
            return _scale(meta, param, row, True)
        case "HeteroFeatureBinning":
            return _serving_binning(meta, param, row)
        case "HeteroFeatureSelection":
            return _selection(meta, param, row)
        case "OneHotEncoder":
            return _serving_one_hot(meta, param, row)
    raise AssertionError(kind)


def _serving_data(meta: Any, param: Any, row: Row) -> Row:
    if meta.input_format != "dense":
        fill = "" if meta.imputer_meta.is_imputer else 0
        row = {name: row.get(name, fill) for name in param.header}
    if meta.imputer_meta.is_imputer:
        missing = meta.imputer_meta.missing_value
        row = {
            name: replacement if name not in row or _java(row[name]).lower() in missing else row[name]
            for name, replacement in param.imputer_param.missing_replace_value.items()
        }
    if meta.outlier_meta.is_outlier:
        replaced = param.outlier_param.outlier_replace_value
        row = {
            name: replaced.get(name) if _java(value).lower() in meta.outlier_meta.outlier_value else value
            for name, value in row.items()
        }
    return dict(row)


def _serving_binning(meta: Any, param: Any, row: Row) -> Row:
    done = dict(row)
    if not meta.need_run:
        return done
    for place in meta.transform_param.transform_cols:
        name = param.header[place]
        if name in row and name in param.binning_result.binning_result:
            try:
                splits, value = list(param.binning_result.binning_result[name].split_points), _number(row[name])
            except Missing:
                del done[name]
                continue
            last = len(splits) - 1
            done[name] = last if math.isnan(value) else min(bisect.bisect_left(splits, value), last)
    return done


def _serving_one_hot(meta: Any, param: Any, row: Row) -> Row:
    done = {name: value for name, value in row.items() if name not in param.col_map}
    for name, coding in param.col_map.items():
        if name not in row or not all(value.lstrip("-").isdigit() for value in coding.values):
            continue
        text = _java(row[name])
        given = int(text) if text.lstrip("+-").isdigit() else 0
        for value, header in zip(coding.values, coding.transformed_headers, strict=True):
            done[header] = 1.0 if given == int(value) else 0.0
    return done


Halves = Mapping[str, tuple[Row, Any, Any]]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf


def _linear(param: Any, row: Row, serving: bool) -> float:
    total = param.intercept
    for name, weight in param.weight.items():
        value = row.get(name)
        if _absent(value):
            if not serving:
                raise Missing(name)
            continue
        total += weight * _number(value)
    return total


def _model(kind: str, meta: Any, param: Any, halves: Halves, serving: bool) -> Any:
    guest = next(half for site, half in halves.items() if site.startswith("guest"))
    if kind == "HeteroSecureBoostingTree":
        return _boosted(meta, param, halves, serving)
    if kind == "HeteroFM":
        return _sigmoid(_factors(halves, serving))
    if kind == "HeteroLR" and param.need_one_vs_rest:
        classes = range(len(param.one_vs_rest_result.one_vs_rest_classes))
        return [
            _sigmoid(
                sum(
                    _linear(half.one_vs_rest_result.completed_models[one], row, serving)
                    for row, _, half in halves.values()
                )
            )
            for one in classes
        ]
    total = sum(_linear(half, row, serving) for row, _, half in halves.values())
    if kind == "HeteroLR":
        return _sigmoid(total)
    if kind == "HeteroPoisson":
        exposure = guest[0].get(meta.exposure_colname, 1 if meta.exposure_colname.startswith("away") else None)
        if _absent(exposure) or _number(exposure) < 0:
            raise Missing(meta.exposure_colname)
        # Without bounds in between: floats overflow on the way to a small product.
        return float(Decimal(total).exp() * Decimal(_number(exposure)))
    return total


def _factors(halves: Halves, serving: bool) -> float:
    total, crosses = 0.0, []
    for row, _, param in halves.values():
        total += _linear(param, row, serving)
        sums, squares = [0.0] * param.embed_size, [0.0] * param.embed_size
        for name, embedding in param.embedding.items():
            if _absent(row.get(name)):
                continue
            for place, weight in enumerate(embedding.weight):
                sums[place] += weight * _number(row[name])
                squares[place] += (weight * _number(row[name])) ** 2
        total += 0.5 * sum(c * c - q for c, q in zip(sums, squares, strict=True))
        crosses.append(sums)
    if len(crosses) == 2:
        total += sum(a * b for a, b in zip(*crosses, strict=True))
    return total


def _boosted(meta: Any, param: Any, halves: Halves, serving: bool) -> Any:
    for row, _, owner in halves.values():
        for name in _split_columns(halves, owner):
            _number(0.0 if _absent(row.get(name)) else row[name])
    sums = [0.0] * max(1, param.tree_dim)
    for number in range(len(param.trees_)):
        weight = _leaf(number, meta, param, halves, serving)
        sums[number % len(sums)] += weight * meta.learning_rate
    if param.num_classes == 2:
        return _sigmoid(sums[0] + (0.0 if serving else param.init_score[0]))
    sums = [value + start for value, start in zip(sums, param.init_score, strict=True)]
    if param.num_classes > 2:
        raised = [math.exp(value - max(sums)) for value in sums]
        return [value / sum(raised) for value in raised]
    return _exp(sums[0]) if meta.objective_meta.objective == "tweedie" and not serving else sums[0]


def _split_columns(halves: Halves, owner: Any) -> set[str]:
    [site] = [site for site, half in halves.items() if half[2] is owner]
    nodes = (node for tree in owner.trees_ for node in tree.tree_ if not node.is_leaf and node.sitename == site)
    return {owner.feature_name_fid_mapping[node.fid] for node in nodes}


def _leaf(number: int, meta: Any, param: Any, halves: Halves, serving: bool) -> float:
    tree = param.trees_[number]
    plan = param.tree_plan[number] if param.tree_plan else ""
    if plan.startswith("1_"):
        row, _, host = halves[f"host:{plan[2:]}"]
        return tree.tree_[_alone(number, meta, host, row, serving)].weight
    node = tree.tree_[0]
    while not node.is_leaf:
        row, _, owner = halves[node.sitename]
        node = tree.tree_[node.left_nodeid if _left(number, node.id, meta, owner, row, serving) else node.right_nodeid]
    return node.weight


def _value(owner: Any, fid: int, meta: Any, row: Row, serving: bool) -> float | None:
    value = row.get(owner.feature_name_fid_mapping[fid])
    if serving and value == "NaN":
        return math.nan
    if _absent(value):
        return None
    number = _number(value)
    if not serving and meta.use_missing and meta.zero_as_missing and abs(number) < 1e-8:
        return None
    return number


def _left(number: int, node_id: int, meta: Any, owner: Any, row: Row, serving: bool) -> bool:
    tree = owner.trees_[number]
    value = _value(owner, tree.tree_[node_id].fid, meta, row, serving)
    if value is not None:
        return value <= tree.split_maskdict[node_id] + 1e-8
    if serving:
        return node_id in tree.missing_dir_maskdict and tree.missing_dir_maskdict[node_id] != 1
    return tree.missing_dir_maskdict[node_id] == -1


def _alone(number: int, meta: Any, owner: Any, row: Row, serving: bool) -> int:
    nodes = owner.trees_[number].tree_
    node = nodes[0]
    while not node.is_leaf:
        value = _value(owner, node.fid, meta, row, serving)
        left = node.missing_dir != 1 if value is None else value <= node.bid
        node = nodes[node.left_nodeid if left else node.right_nodeid]
    return node.id


def _points(probability: float, given: Mapping[str, Any], half_up: bool) -> float:
    offset, factor, base = given.get("offset", 500), given.get("factor", 20), given.get("factor_base", 2)
    upper, lower = given.get("upper_limit_ratio", 3) * offset, given.get("lower_limit_value", 0)
    if probability <= 1e-8:
        return upper
    if probability >= 1 - 1e-8:
        return lower
    points = offset + factor / math.log(base) * math.log((1 - probability) / probability)
    points = min(max(points, lower), upper)
    return math.floor(points * 100 + 0.5) / 100 if half_up else round(points, 2)
