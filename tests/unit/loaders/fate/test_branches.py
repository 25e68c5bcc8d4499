"""Pipelines with branches: FATE-Serving's components write into values that others hold too, FATE's do not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

import pytest

from loaders.fate.compiling import compile_half
from loaders.fate.component import Mode, Site
from loaders.fate.order import hashed
from tessera.compat import fate_model_pb2 as wire
from tests.fate_models import GUEST
from tests.unit.loaders.fate.halves import batch

Values = dict[str, float]
COLUMNS = ("a", "b", "c")
NAMES = [
    f"{kind}_{number}" for kind in ("dataio", "feature_scale", "hetero_binning", "selection") for number in range(9)
]


def java_order(names: list[str]) -> list[str]:
    """A hash table with chains, which doubles once it is three quarters full."""
    table: list[list[str]] = [[] for _ in range(16)]
    for count, name in enumerate(names, 1):
        table[_bucket(name, len(table))].append(name)
        if count > 0.75 * len(table):
            kept = [one for bucket in table for one in bucket]
            table = [[one for one in kept if _bucket(one, 2 * len(table)) == place] for place in range(2 * len(table))]
    return [name for bucket in table for name in bucket]


def java_hash(name: str) -> int:
    return sum(ord(letter) * 31 ** (len(name) - 1 - place) for place, letter in enumerate(name)) % 2**32


def _bucket(name: str, size: int) -> int:
    return (java_hash(name) ^ (java_hash(name) >> 16)) & (size - 1)


class Pipeline:
    """Random components, each behind up to two of those before it, and a sum of all columns behind them."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(seed)
        self.upstream: dict[str, list[str]] = {}
        self.parts: dict[str, bytes] = {}
        self.work: dict[str, Callable[[Values, bool], Values]] = {}
        for name in self.source.sample(NAMES, self.source.randrange(2, 15)):
            self.upstream[name] = self._some(self.source.choice([0, 1, 1, 1, 2]))
            self.work[name] = getattr(self, name[:-2])(name)
        self.upstream["linr_0"] = self._some(self.source.choice([1, 2]))
        weights = {name: 10.0**place for place, name in enumerate(COLUMNS)}
        self._add("linr_0", wire.LinRModelMeta(), wire.LinRModelParam(weight=weights, header=COLUMNS))

    def _some(self, count: int) -> list[str]:
        return self.source.sample(list(self.upstream), min(count, len(self.upstream)))

    def _add(self, name: str, meta: wire.LinRModelMeta, param: wire.LinRModelParam) -> None:
        self.parts |= {f"{name}/m/XMeta": meta.SerializeToString(), f"{name}/m/XParam": param.SerializeToString()}

    def dataio(self, name: str) -> Callable[[Values, bool], Values]:
        """5 becomes 6, in values of its own where it also imputes."""
        meta, param = wire.DataIOMeta(input_format="dense"), wire.DataIOParam(header=COLUMNS)
        meta.outlier_meta.is_outlier = True
        meta.outlier_meta.outlier_value.append("5")
        param.outlier_param.outlier_replace_value.update(dict.fromkeys(COLUMNS, "6"))
        meta.imputer_meta.is_imputer = imputes = self.source.random() < 0.3
        param.imputer_param.missing_replace_value.update(dict.fromkeys(COLUMNS, "0"))
        self._add(name, meta, param)

        def work(values: Values, shares: bool) -> Values:
            values = values if shares and not imputes else dict(values)
            values.update({column: 6.0 for column, value in values.items() if value == 5})
            return values

        return work

    def feature_scale(self, name: str) -> Callable[[Values, bool], Values]:
        """Some columns less 1."""
        runs, scaled = self.source.random() < 0.9, self.source.sample(COLUMNS, 2)
        param = wire.ScaleParam()
        for column in scaled:
            param.col_scale_param[column].CopyFrom(
                wire.ColumnScaleParam(column_upper=99, column_lower=-99, mean=1, std=1)
            )
        self._add(name, wire.ScaleMeta(method="standard_scale", need_run=runs), param)

        def work(values: Values, shares: bool) -> Values:
            values = values if shares else dict(values)
            values.update({column: values[column] - 1 for column in scaled if runs})
            return values

        return work

    def hetero_binning(self, name: str) -> Callable[[Values, bool], Values]:
        """Above 3 or not."""
        runs, place = self.source.random() < 0.7, self.source.randrange(3)
        meta, param = wire.FeatureBinningMeta(need_run=runs), wire.FeatureBinningParam(header=COLUMNS)
        meta.transform_param.CopyFrom(wire.TransformMeta(transform_cols=[place], transform_type="bin_num"))
        param.binning_result.binning_result[COLUMNS[place]].split_points.extend([3.0, 9.0])
        self._add(name, meta, param)
        binned = COLUMNS[place]
        return lambda values, _: {**values, binned: float(values[binned] > 3)} if runs else values

    def selection(self, name: str) -> Callable[[Values, bool], Values]:
        """All columns, or that they stay as they are."""
        meta, param = wire.FeatureSelectionMeta(need_run=self.source.random() < 0.5), wire.FeatureSelectionParam()
        param.final_left_cols.left_cols.update(dict.fromkeys(COLUMNS, True))
        self._add(name, meta, param)
        return lambda values, _: dict(values) if meta.need_run else values

    def exported(self) -> dict[str, bytes]:
        kinds = {"dataio": "DataIO", "feature_scale": "Scale", "selection": "HeteroFeatureSelectionGuest"}
        kinds |= {"hetero_binning": "HeteroFeatureBinningGuest", "linr": "HeteroLinRGuest"}
        components = {
            name: {
                "CodePath": kinds[name[:-2]],
                "input": {"data": {"data": [f"{one}.data" for one in upstream or ["args"]]}},
            }
            for name, upstream in self.upstream.items()
        }
        pipeline = wire.Pipeline(inference_dsl=json.dumps({"components": components}).encode())
        return {**self.parts, "pipeline/pipeline/Pipeline": pipeline.SerializeToString()}

    def total(self, row: Mapping[str, float], serving: bool) -> float:
        request, passed, order = dict(row), dict[str, Values](), list(self.upstream)
        order = self.serving_order() if serving else order
        for name in order:
            upstream = sorted(self.upstream[name], key=order.index) if serving else self.upstream[name]
            given = passed[upstream[0]] if upstream else request
            if name == "linr_0":
                return sum(10.0**place * given[column] for place, column in enumerate(COLUMNS))
            passed[name] = self.work[name](given, serving)
        raise AssertionError("there is a model")

    def serving_order(self) -> list[str]:
        listed = java_order(list(self.upstream))
        stack, order = [name for name in listed if not self.upstream[name]], list[str]()
        while stack:
            order.append(stack.pop())
            behind = [name for name in listed if order[-1] in self.upstream[name]]
            stack += [name for name in behind if set(self.upstream[name]) <= set(order)]
        return order


@pytest.mark.parametrize("mode", list(Mode))
def test_branches_see_what_others_write_in_fate_serving_alone(mode: Mode) -> None:
    differ = 0
    for seed in range(150):
        pipeline, serving = Pipeline(seed), mode is Mode.SERVING_COMPAT
        servable = compile_half(pipeline.exported(), Site("guest", GUEST, (), mode)).servable()
        for _ in range(3):
            row = {column: float(pipeline.source.randrange(8)) for column in COLUMNS}
            [[score]] = servable.predict(batch(servable, [row]))["partial"]
            assert score == pytest.approx(pipeline.total(row, serving)), seed
            differ += pipeline.total(row, True) != pipeline.total(row, False)
    assert differ > 50, "the test tests something"


def test_names_come_in_the_order_of_java() -> None:
    assert (java_hash("hello"), java_hash("Aa"), java_hash("BB")) == (99162322, 2112, 2112)
    assert hashed(["BB", "Aa"]) == ["BB", "Aa"]
    source = random.Random(0)
    for count in range(0, 60, 5):
        names = [f"{source.choice(['hetero_lr', 'scale', 'dataio'])}_{number}" for number in range(count)]
        assert hashed(names) == java_order(names)
