"""Single values through single trees, at the edges that random models do not meet."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from loaders.artifact import Link
from loaders.fate.compiling import compile_half
from loaders.fate.component import Mode, Site
from loaders.fate.components.hetero_secureboost import KINDS
from tessera.compat import fate_model_pb2 as wire
from tests.fate_models import GUEST, HOSTS, Builder
from tests.unit.loaders.fate.halves import batch

HOST = HOSTS[0]
COMPAT, STRICT = Mode.SERVING_COMPAT, Mode.STRICT_OFFLINE
LEFT, RIGHT = 1.0, 2.0
Change = Callable[[Any, Any], object]


def nothing(meta: Any, param: Any) -> None: ...


def half(
    mode: Mode, change: Change = nothing, role: str = "guest", party: str = GUEST, kind: str = "HeteroSecureBoost"
) -> Any:
    """One tree of two leaves, with a split of x at 0.5."""
    site = f"{role}:{party}"
    builder = Builder(random.Random(0), site, ["x"])
    meta = wire.BoostingTreeModelMeta(learning_rate=1.0, task_type="classification", use_missing=True)
    param = wire.BoostingTreeModelParam(tree_num=1, tree_dim=1, num_classes=2, classes_=["0", "1"], init_score=[0.0])
    param.feature_name_fid_mapping[0] = "x"
    tree = param.trees_.add()
    tree.tree_.add(id=0, sitename=site, left_nodeid=1, right_nodeid=2, bid=0.5)
    tree.tree_.add(id=1, is_leaf=True, weight=LEFT)
    tree.tree_.add(id=2, is_leaf=True, weight=RIGHT)
    tree.split_maskdict[0], tree.missing_dir_maskdict[0] = 0.5, 1
    change(meta, param)
    builder.add("boost_0", kind, "HeteroSecureBoostingTree", meta, param)
    return compile_half(builder.finish(), Site(role, party, (HOST,) if role == "host" else (), mode))


def total(value: float | str | None, mode: Mode, change: Change = nothing) -> float:
    """What the link is applied to."""
    servable = half(mode, change).servable()
    outputs = servable.predict(batch(servable, [{} if value is None else {"x": value}]))
    [[score]] = servable.combine([outputs["directions"]])
    return float(score)


def leaf(value: float | None, change: Change = nothing) -> int:
    """Of a tree that a host walks alone."""

    def alone(meta: Any, param: Any) -> None:
        param.tree_plan.append(f"1_{HOST}")
        change(meta, param)

    servable = half(STRICT, alone, "host", HOST).servable()
    [[place]] = servable.predict(batch(servable, [{} if value is None else {"x": value}]))["leaves"]
    return int(place)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("value", "side"), [(0.5, LEFT), (0.5 + 5e-9, LEFT), (0.5 + 2e-8, RIGHT)])
def test_a_value_a_little_above_the_split_goes_left(mode: Mode, value: float, side: float) -> None:
    assert total(value, mode) == side


@pytest.mark.parametrize(("value", "side"), [(0.5, 1), (0.5 + 5e-9, 2)])
def test_a_tree_that_a_host_walks_alone_splits_exactly(value: float, side: int) -> None:
    assert leaf(value) == side


@pytest.mark.parametrize(("direction", "side"), [(-1, 1), (0, 1), (1, 2)])
def test_missing_goes_right_in_such_a_tree_only_where_it_says_so(direction: int, side: int) -> None:
    assert leaf(None, lambda _, param: setattr(param.trees_[0].tree_[0], "missing_dir", direction)) == side


@pytest.mark.parametrize(
    ("direction", "offline", "serving"), [(-1, LEFT, LEFT), (0, RIGHT, LEFT), (1, RIGHT, RIGHT), (None, RIGHT, RIGHT)]
)
def test_missing_goes_where_the_tree_says(direction: int | None, offline: float, serving: float) -> None:
    def change(meta: Any, param: Any) -> None:
        known = param.trees_[0].missing_dir_maskdict
        known.clear()
        if direction is not None:
            known[0] = direction

    assert (total(None, STRICT, change), total(None, COMPAT, change)) == (offline, serving)


@pytest.mark.parametrize("of_tree", [False, True])
@pytest.mark.parametrize(("value", "missing"), [(5e-9, True), (-5e-9, True), (2e-8, False)])
def test_a_number_close_to_zero_is_missing_where_zeros_are(of_tree: bool, value: float, missing: bool) -> None:
    def change(meta: Any, param: Any) -> None:
        meta.use_missing, place = not of_tree, meta.tree_meta if of_tree else meta
        place.use_missing = place.zero_as_missing = True

    assert (total(value, STRICT, change), total(value, COMPAT, change)) == (RIGHT if missing else LEFT, LEFT)


def test_fate_serving_adds_no_initial_score_for_two_classes() -> None:
    def change(meta: Any, param: Any) -> None:
        param.init_score[0] = 0.25

    assert (total(0.0, STRICT, change), total(0.0, COMPAT, change)) == (LEFT + 0.25, LEFT)


def test_a_regression_is_one_whatever_its_number_of_classes_but_for_fate_serving() -> None:
    def change(meta: Any, param: Any) -> None:
        meta.task_type = "regression"

    assert [half(mode, change).merge.link for mode in (STRICT, COMPAT)] == [Link.IDENTITY, Link.SIGMOID]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_trees_have_several_classes_of_components(kind: str) -> None:
    assert half(STRICT, kind=kind).merge.link is Link.SIGMOID
