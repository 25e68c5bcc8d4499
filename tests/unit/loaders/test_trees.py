"""Federated trees: all halves together give what the nested trees give, whoever owns which split."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loaders.artifact import Link, Merge, MergeKind
from loaders.catalog import load_servable, loader_for
from loaders.loader import LoadError, PartialError, PartialForm, Servable
from loaders.merge import merge_rule
from loaders.registry import open_half
from loaders.signature import Batch, Missing, TensorSpec
from tests import forests
from tests.artifacts import npy
from tests.forests import Forest, Leaf, Split, evaluate, grow
from tests.unit.loaders.halves import load

PARTIES = ("bank", "phone", "shop")


def numbers(rows: list[list[float]]) -> Batch:
    matrix = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    return Batch(matrix, np.empty((len(rows), 0), dtype=np.object_))


def users(seed: int, features: tuple[int, ...], count: int) -> list[list[list[float]]]:
    """Inputs by user and party: many on a threshold, some missing."""
    source = random.Random(seed)

    def value() -> float:
        return math.nan if source.random() < 0.2 else round(source.uniform(-1.2, 1.2), 1)

    return [[[value() for _ in range(size)] for size in features] for _ in range(count)]


def loaded(tmp_path: Path, forest: Forest, link: Link = Link.IDENTITY) -> list[Servable]:
    roots = {party: tmp_path / party for party in PARTIES[: len(forest.features)]}
    forests.publish(roots, forest, link=link)
    return [load_servable(loader_for(open_half(root, "m", "1", party))) for party, root in roots.items()]


def partials(halves: list[Servable], rows: list[list[list[float]]]) -> list[np.ndarray]:
    return [half.predict(numbers([user[party] for user in rows]))["directions"] for party, half in enumerate(halves)]


def scores(halves: list[Servable], rows: list[list[list[float]]], link: Link = Link.IDENTITY) -> np.ndarray:
    sent = partials(halves, rows)
    for host, (half, values) in enumerate(zip(halves[1:], sent[1:], strict=True)):
        spec = halves[0].wanted(host)
        assert half.partial == spec
        assert values.shape == (len(rows), spec.columns)
        assert spec.unpack(values.tobytes(), len(rows)).tolist() == values.tolist()
    return merge_rule(Merge(kind=MergeKind.TREE_WALK, link=link), halves[0])(sent)


@pytest.mark.parametrize("mix", [False, True], ids=["std", "mix"])
@pytest.mark.parametrize("features", [(3,), (2, 3), (2, 1, 4)], ids=["local", "one host", "two hosts"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_halves_walk_as_the_trees_say(tmp_path: Path, features, outputs: int, mix: bool) -> None:
    for seed in range(4):
        forest = grow(seed, features, 12, 4, outputs=outputs, mix=mix)
        rows = users(seed, features, 90)
        halves = loaded(tmp_path / str(seed), forest)
        expected = [evaluate(forest, user) for user in rows]
        assert halves[0].score_width == outputs
        assert scores(halves, rows) == pytest.approx(np.array(expected), abs=1e-12)


def test_a_row_gives_the_same_bits_alone_and_in_a_batch(tmp_path: Path) -> None:
    forest = grow(1, (3, 3), 30, 5, outputs=3)
    rows = users(1, (3, 3), 200)
    halves = loaded(tmp_path, forest)
    alone = np.concatenate([scores(halves, [row]) for row in rows])
    assert scores(halves, rows).tobytes() == alone.tobytes()


def test_the_threshold_itself_goes_left_and_a_tree_may_be_a_leaf(tmp_path: Path) -> None:
    stump = Split(1, 0, 0.5, False, Leaf(1.0), Leaf(2.0))
    halves = loaded(tmp_path, Forest((1, 1), [Leaf(10.0), stump], [0, 0]))
    rows = [[[0.0], [value]] for value in (0.5, math.nextafter(0.5, 1), math.nan)]
    assert scores(halves, rows).tolist() == [[11.0], [12.0], [12.0]]


def test_a_forest_of_leaves_asks_nobody(tmp_path: Path) -> None:
    halves = loaded(tmp_path, Forest((1, 1), [Leaf(1.0), Leaf(0.25)], [0, 0]))
    assert halves[0].wanted(0).width == 0
    assert scores(halves, [[[0.0], [0.0]]] * 2).tolist() == [[1.25], [1.25]]


def test_the_link_comes_last(tmp_path: Path) -> None:
    halves = loaded(tmp_path, Forest((1, 1), [Leaf(0.5)], [0]), Link.SIGMOID)
    assert scores(halves, [[[0.0], [0.0]]], Link.SIGMOID)[0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_leaves_that_a_tree_does_not_have_are_refused(tmp_path: Path) -> None:
    tree = Split(1, 0, 0.5, False, Leaf(1.0), Leaf(2.0))
    [guest, host] = loaded(tmp_path, Forest((1, 1), [tree], [1]))
    assert host.partial.form is PartialForm.LEAVES
    rule = merge_rule(Merge(kind=MergeKind.TREE_WALK), guest)
    own = guest.predict(numbers([[0.0]]))["directions"]
    assert [rule([own, np.array([[leaf]], dtype="<u4")]).tolist() for leaf in (1, 2)] == [[[1.0]], [[2.0]]]
    for leaf in (0, 3, 2**31, 2**32 - 2):
        with pytest.raises(PartialError):
            rule([own, np.array([[leaf]], dtype="<u4")])
    assert math.isnan(rule([own, guest.wanted(0).blank(1)])[0, 0]), "no answer is no score, and no error"


FOREST = Forest((1, 1), [Split(0, 0, 0.5, False, Split(1, 0, 0.0, True, Leaf(1.0), Leaf(2.0)), Leaf(3.0))], [0])
NODES = [(0, 0, 1, 2, 0), (1, -1, 3, 4, 0), (0, -1, -1, -1, 0), (0, -1, -1, -1, 0), (0, -1, -1, -1, 0)]


def nodes(place: int, *node: int) -> dict[str, bytes]:
    return {"nodes.npy": forests.npy_int([*NODES[:place], node, *NODES[place + 1 :]], 5)}


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (nodes(0, 0, 0, 0, 2, 0), "tree 0: two ways lead to one node"),
        (nodes(1, 1, -1, 0, 4, 0), "tree 0: two ways lead to one node"),
        (nodes(1, 1, -1, 4, 4, 0), "tree 0: two ways lead to one node"),
        (nodes(1, 1, -1, 3, 5, 0), "tree 0: a child lies outside"),
        (nodes(1, 1, -1, 3, -1, 0), "tree 0: a child lies outside"),
        (nodes(1, 1, -1, -2, -2, 0), "tree 0: a way down leads to a node of which nothing is known"),
        (nodes(1, 2, -1, 3, 4, 0), "a host that is not among the 1 of the binding"),
        (nodes(1, -1, -1, 3, 4, 0), "a host that is not among the 1 of the binding"),
        (nodes(0, 0, 1, 1, 2, 0), "tree 0: a split names input 1 of 1"),
        (nodes(0, 0, -1, 1, 2, 0), "tree 0: a split names input -1 of 1"),
        ({"trees.npy": forests.npy_int([(0, 2)], 2)}, "a host that is not among"),
        ({"trees.npy": forests.npy_int([(1, 0)], 2)}, "must rise, from 0"),
        ({"trees.npy": forests.npy_int([(0, 0), (5, 0)], 2)}, "must rise, from 0"),
        ({"trees.npy": forests.npy_int([], 2)}, "must rise, from 0"),
        ({"trees.npy": forests.npy_int([(0, 0), (3, 1)], 2)}, "walks trees alone and owns splits"),
        ({"trees.npy": npy([[0.0, 0.0]])}, r"trees\.npy must hold int32"),
        ({"nodes.npy": forests.npy_int([(0, 0)], 2)}, r"nodes\.npy has shape \(1, 2\), it must have 5 columns"),
        ({"base.npy": npy([0.0, 0.0])}, "1 trees for 2 outputs"),
        ({"thresholds.npy": npy([0.0])}, "do not hold one number for each of 5 nodes"),
        ({"values.npy": npy([math.nan] * 5)}, r"values\.npy must hold finite"),
        ({"values.npy": b""}, r"values\.npy is not a \.npy array"),
    ],
)
def test_what_is_no_forest_does_not_load(tmp_path: Path, files, text: str) -> None:
    publish = {"bank": tmp_path / "a", "shop": tmp_path / "b"}
    forests.publish(publish, FOREST)
    artifact = open_half(publish["bank"], "m", "1", "bank")
    manifest = artifact.manifest
    intact = forests.guest_files(FOREST)
    for name, content in {**intact, **files}.items():
        (artifact.path / name).write_bytes(content)
    with pytest.raises(LoadError, match=text):
        loader_for(artifact).load()
    assert manifest.format == "trees"


def spec(**changes: object) -> dict[str, object]:
    return {"inputs": (msgspec.structs.replace(forests.half("host", "shop", 1).inputs[0], **changes),)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (spec(dtype="string"), "numbers only"),
        (spec(missing=Missing.IMPUTE), "impute nothing"),
        ({"merge": Merge(kind=MergeKind.SUM)}, "merges by tree_walk"),
        ({"preprocess": [{"kind": "impute"}]}, "no preprocess steps"),
        ({"inputs": ()}, "names input 0 of 0"),
        ({"outputs": ()}, "one output"),
        ({"inputs": (TensorSpec(name="a", dtype="float64", shape=(-1,)),) * 2}, "declared twice"),
    ],
)
def test_a_host_that_declares_what_trees_cannot_be(tmp_path: Path, changes, text: str) -> None:
    files = forests.host_files(FOREST, 1)
    assert load(tmp_path / "good", forests.half("host", "shop", 1), files).partial.width == 1
    with pytest.raises(LoadError, match=text):
        load(tmp_path, forests.half("host", "shop", 1), files, **changes)


def test_a_split_without_a_threshold_is_refused(tmp_path: Path) -> None:
    files = {**forests.host_files(FOREST, 1), "thresholds.npy": npy([])}
    with pytest.raises(LoadError, match="one number for each of 1 splits"):
        load(tmp_path, forests.half("host", "shop", 1), files)
