"""HeteroSecureBoost: boosted trees over several parties, for two classes, more classes, or numbers.

Trees of the strategies std, layered and complete-secure are walked by the guest with everybody's directions. In the
strategy mix each tree is of one party; a host walks its own alone and sends the leaf, which FATE-Serving cannot do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from loaders.fate.boosting import Boosting
from loaders.fate.component import Columns, Component, ComponentError, Model
from loaders.loader import PartialForm, PartialSpec, Servable
from loaders.servables.forest import GUEST, ForestError, guest_trees, host_splits, own_forest
from loaders.servables.program import NAN_SENT, Column, NearZero
from loaders.servables.trees import LoneTreeHost, TreeGuest, TreeHost
from loaders.signature import Signature, TensorSpec
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset(
    {
        "HeteroSecureBoost",
        "HeteroSecureBoosting",
        "HeteroSecureBoostingTree",
        "HeteroFastSecureBoost",
        "HeteroFastSecureBoostingTree",
    }
)

Build = Callable[[Signature], Servable]


def model(component: Component, columns: Columns) -> Model:
    meta, param = component.meta(wire.BoostingTreeModelMeta), component.param(wire.BoostingTreeModelParam)
    boosting = Boosting(component.site, meta, param)
    boosting.check()
    used = boosting.own_features()
    if component.site.compat:
        columns = columns.spelled(param.feature_name_fid_mapping.values(), {"NaN": NAN_SENT})
    inputs = [_column(columns, param, fid) for fid in used]
    if boosting.zero_is_missing:
        inputs = [column.then(columns.stage + 1, NearZero(math.nan)) for column in inputs]
    places = {fid: place for place, fid in enumerate(used)}
    try:
        spec, build = _guest(boosting, places) if component.site.role == "guest" else _host(boosting, places)
    except ForestError as error:
        raise ComponentError(str(error)) from None
    return Model(columns=inputs, build=build, output=_output(spec), merge=boosting.merge)


def _column(columns: Columns, param: wire.BoostingTreeModelParam, fid: int) -> Column:
    if fid not in param.feature_name_fid_mapping:
        raise ComponentError(f"a split names feature {fid}, which has no name")
    name = param.feature_name_fid_mapping[fid]
    column = columns.number(name)
    if column is None:
        raise ComponentError(f"no component before it gives column {name!r}")
    return column


def _guest(boosting: Boosting, places: dict[int, int]) -> tuple[PartialSpec, Build]:
    table = boosting.guest_table(places)
    trees = guest_trees(table, len(places), len(boosting.site.hosts), boosting.base)
    return PartialSpec(PartialForm.DIRECTIONS, trees.splits.count), lambda signature: TreeGuest(signature, trees)


def _host(boosting: Boosting, places: dict[int, int]) -> tuple[PartialSpec, Build]:
    table = boosting.host_table(places)
    if not boosting.walks_alone:
        splits = host_splits(table, GUEST, len(places))
        return PartialSpec(PartialForm.DIRECTIONS, splits.count), lambda signature: TreeHost(signature, splits)
    own, forest = own_forest(table, len(places))
    spec = PartialSpec(PartialForm.LEAVES, int(table.roots.size))
    return spec, lambda signature: LoneTreeHost(signature, own, forest)


def _output(spec: PartialSpec) -> TensorSpec:
    kind = "uint8" if spec.form is PartialForm.DIRECTIONS else "uint32"
    return TensorSpec(name=spec.form.name.lower(), dtype=kind, shape=(-1, spec.columns))
