"""Random FATE models of every kind give what FATE, or FATE-Serving, gives by its own description."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loaders.fate.component import Mode
from loaders.signature import FeatureError
from tessera.compat import fate_model_pb2 as wire
from tests import fate_reference as reference
from tests.fate_models import GUEST, Recipe, make
from tests.unit.loaders.fate.halves import load, users

RECIPES = {
    "lr": Recipe("lr"),
    "lr of two hosts": Recipe("lr", hosts=2),
    "lr of texts": Recipe("lr", texts=True),
    "lr without preprocessing": Recipe("lr", plain=True),
    "one-vs-rest": Recipe("ovr", classes=3),
    "linr": Recipe("linr"),
    "poisson": Recipe("poisson"),
    "fm": Recipe("fm"),
    "scorecard": Recipe("scorecard"),
    "binary": Recipe("trees"),
    "binary of two hosts": Recipe("trees", hosts=2),
    "binary without preprocessing": Recipe("trees", hosts=2, plain=True),
    "trees of texts": Recipe("trees", texts=True),
    "many classes": Recipe("trees", classes=3),
    "regression": Recipe("trees", classes=0, objective="lse"),
    "tweedie": Recipe("trees", classes=1, objective="tweedie"),
    "layered": Recipe("trees", strategy="layered"),
    "mix": Recipe("trees", strategy="mix"),
    "mix of two hosts": Recipe("trees", hosts=2, strategy="mix", classes=3),
    "zero as missing": Recipe("trees", zero_as_missing=True),
    "mix, zero as missing": Recipe("trees", strategy="mix", zero_as_missing=True),
    "zero as missing, unused": Recipe("trees", use_missing=False, zero_as_missing=True),
}
CASES = [(name, mode) for name in RECIPES for mode in Mode if (name, mode) != ("trees of texts", Mode.SERVING_COMPAT)]


def check(root: Path, name: str, mode: Mode, seeds: range) -> int:
    """How many rows were answered, all of them right."""
    answered = 0
    for seed in seeds:
        model = make(seed, RECIPES[name])
        halves = load(root / str(seed), model, mode)
        for number, row in enumerate(users(seed, model, 8)):
            try:
                expected = reference.score(model, row, mode is Mode.SERVING_COMPAT)
            except reference.Missing:
                with pytest.raises(FeatureError):
                    halves.scores([row])
                continue
            assert halves.scores([row])[0] == pytest.approx(expected, rel=1e-9, abs=1e-12), (seed, number)
            answered += 1
    return answered


@pytest.mark.parametrize(("name", "mode"), CASES, ids=[f"{name}, {mode.value}" for name, mode in CASES])
def test_scores_are_as_described(tmp_path: Path, name: str, mode: Mode) -> None:
    assert check(tmp_path, name, mode, range(4)) > 3, "the test tests something"


@pytest.mark.soak
@pytest.mark.parametrize(("name", "mode"), CASES, ids=[f"{name}, {mode.value}" for name, mode in CASES])
def test_many_more_scores_are_as_described(tmp_path: Path, name: str, mode: Mode) -> None:
    assert check(tmp_path, name, mode, range(4, 120)) > 100


@pytest.mark.parametrize("name", ["lr", "fm", "many classes", "mix"])
def test_a_row_gives_the_same_bits_alone_and_in_a_batch(tmp_path: Path, name: str) -> None:
    model = make(1, RECIPES[name])
    halves = load(tmp_path, model, Mode.SERVING_COMPAT)
    rows = users(1, model, 150)
    alone = np.concatenate([halves.scores([row]) for row in rows])
    assert halves.scores(rows).tobytes() == alone.tobytes()


@pytest.mark.parametrize("strategy", ["std", "mix"])
def test_a_guest_and_a_host_of_one_party_id_own_their_own_nodes(tmp_path: Path, strategy: str) -> None:
    """Of FATE-Serving's guest all nodes are its own then."""
    model = make(4, Recipe("trees", plain=True, strategy=strategy))
    [host], rows = model.hosts, users(4, model, 8)
    wanted = load(tmp_path / "apart", model, Mode.STRICT_OFFLINE).scores(rows)
    name, kind = "hetero_secure_boost_0/model/HeteroSecureBoostingTreeParam", wire.BoostingTreeModelParam
    for site in model.sites:
        param = kind.FromString(model.parts[site][name])
        for node in (node for tree in param.trees_ for node in tree.tree_ if node.sitename == f"host:{host}"):
            node.sitename = f"host:{GUEST}"
        param.tree_plan[:] = [entry.replace(f"_{host}", f"_{GUEST}") for entry in param.tree_plan]
        model.parts[site][name] = param.SerializeToString()
    model.hosts, one = (GUEST,), f"host:{GUEST}"
    model.parts[one], model.columns[one] = model.parts[f"host:{host}"], model.columns[f"host:{host}"]
    moved = [{f"guest:{GUEST}": row[f"guest:{GUEST}"], one: row[f"host:{host}"]} for row in rows]
    assert load(tmp_path / "together", model, Mode.STRICT_OFFLINE).scores(moved).tolist() == wanted.tolist()
