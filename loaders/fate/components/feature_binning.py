"""HeteroFeatureBinning: numbers become the number of their bin or the bin's weight of evidence.

FATE-Serving always gives the number of the bin. It leaves missing values missing, loses texts that are no numbers, and
puts NaN into the last bin. Offline, sparse rows keep their zeros: only what a row holds gets a bin.
"""

from __future__ import annotations

import math
from dataclasses import replace

from loaders.fate.component import Columns, Component, ComponentError
from loaders.servables.program import NAN_SENT, NO_TEXT, Bins
from loaders.signature import UNREADABLE
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"HeteroFeatureBinning"})
TAKES_ROWS_WITHOUT_ZEROS = True


def transform(component: Component, columns: Columns) -> Columns:
    meta, param = component.meta(wire.FeatureBinningMeta), component.param(wire.FeatureBinningParam)
    if not meta.need_run:
        return columns
    binned = _results(component, meta, param)
    chosen = {param.header[place] for place in meta.transform_param.transform_cols if 0 <= place < len(param.header)}
    names = [name for name in binned if name in chosen and columns.number(name) is not None]
    if component.site.compat:
        columns = columns.spelled(names, {"NaN": NAN_SENT, UNREADABLE: NO_TEXT})
        return columns.next_stage({name: _numbered(binned[name], math.nan, drops_texts=True) for name in names})
    match meta.transform_param.transform_type:
        case "" | "None":
            return columns
        case "bin_num":
            bins = {name: _numbered(binned[name], float(len(binned[name].split_points))) for name in names}
        case "woe":
            bins = {name: _weighed(name, binned[name]) for name in names}
        case _:
            raise ComponentError(f"unknown transform_type {meta.transform_param.transform_type!r}")
    return columns.next_stage({name: _of_row(step, columns) for name, step in bins.items()})


def _of_row(bins: Bins, columns: Columns) -> Bins:
    missing = math.nan if columns.lacks_zeros else bins.missing
    return replace(bins, missing=missing, leaves_zero=columns.skips_zeros)


def _results(
    component: Component, meta: wire.FeatureBinningMeta, param: wire.FeatureBinningParam
) -> dict[str, wire.IVParam]:
    """The bins of the training; offline those of a model that only transforms where there are no others."""
    own = dict(param.binning_result.binning_result)
    if component.site.compat:
        return own
    if len(param.multi_class_result.labels) > 2 and meta.transform_param.transform_type == "woe":
        raise ComponentError("weights of evidence of more than two classes are not served")
    return own or dict(param.transform_binning_result.binning_result)


def _numbered(result: wire.IVParam, missing: float, drops_texts: bool = False) -> Bins:
    splits = tuple(result.split_points[:-1])
    return Bins(splits, tuple(float(number) for number in range(len(splits) + 1)), missing, drops_texts)


def _weighed(name: str, result: wire.IVParam) -> Bins:
    splits, weights = tuple(result.split_points[:-1]), tuple(result.woe_array)
    bins = len(splits) + 1
    if len(weights) < bins:
        raise ComponentError(f"column {name!r} has {bins} bins and {len(weights)} weights of evidence")
    return Bins(splits, weights[:bins], weights[bins] if len(weights) > bins else math.nan)
