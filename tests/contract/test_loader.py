"""What every loader promises."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loaders.artifact import ArtifactError, HalfRef, Manifest, SelfTest
from loaders.catalog import formats, load_servable, loader_for
from loaders.fate.component import Mode, Site
from loaders.fate.importing import half_of
from loaders.fate.names import FateName
from loaders.loader import Loader, LoadError, Servable
from loaders.registry import bind, half_path, open_half, write_half
from loaders.signature import Batch
from tessera.compat import fate_model_pb2 as wire
from tests import forests
from tests.artifacts import make_bound_pair, make_onnx
from tests.unit.loaders.halves import load


def make_fate(root: Path) -> Path:
    """score = sigmoid(0.5 a - b + 0.25), of raw columns."""
    param = wire.LRModelParam(weight={"a": 0.5, "b": -1.0}, header=["a", "b"], intercept=0.25)
    dsl = {"components": {"lr_0": {"CodePath": "HeteroLRGuest"}}}
    parts = {
        "lr_0/model/LRModelParam": param.SerializeToString(),
        "pipeline/pipeline/Pipeline": wire.Pipeline(inference_dsl=json.dumps(dsl).encode()).SerializeToString(),
    }
    manifest, files = half_of(parts, FateName("m", "1"), Site("guest", "bank", (), Mode.STRICT_OFFLINE))
    test = SelfTest(numbers=[[0.5, 0.0], [0.0, 1.0]], outputs={"partial": [[0.5], [-0.75]]})
    digest = write_half(root, msgspec.structs.replace(manifest, self_test=test, identity=None), files)
    half = half_path(root, "m", "1", "guest", "bank")
    bind(half, [HalfRef("guest", "bank", digest)])
    return half


DIRECTIONS = SelfTest(numbers=[[0.0, 0.25], [1.0, None]], outputs={"directions": [[101.0], [0.0]]})


@pytest.fixture(params=["tessera", "onnx", "trees", "fate"])
def half(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A bound half of this format, in the registry of `bank`."""
    if request.param == "onnx":
        return make_onnx(tmp_path, model="m", version="1", party="bank")
    if request.param == "trees":
        forests.publish({"bank": tmp_path}, forests.grow(7, (2,), 1, 3, full=True), self_test=DIRECTIONS)
        return half_path(tmp_path, "m", "1", "guest", "bank")
    if request.param == "fate":
        return make_fate(tmp_path)
    pair = make_bound_pair(
        tmp_path,
        tmp_path,
        model="m",
        version="1",
        guest="bank",
        host="shop",
        guest_weights={"a": 0.5, "b": 2.0},
        host_weights={"x": 1.0},
        intercept=0.5,
    )
    return pair.guest


@pytest.fixture
def loader(half: Path, tmp_path: Path) -> Loader:
    return loader_for(open_half(tmp_path, "m", "1", "bank"))


def batch(rows: int) -> Batch:
    return Batch(np.linspace(-1, 1, 2 * rows).reshape(rows, 2), np.empty((rows, 0), dtype=np.object_))


def test_the_suite_runs_over_every_format() -> None:
    assert formats() == ["fate", "onnx", "tessera", "trees"], "add the new format to the fixture above"


def test_the_size_is_known_before_the_load(loader: Loader) -> None:
    assert 0 < loader.estimate() < 1 << 20


@pytest.mark.parametrize("rows", [1, 7])
def test_outputs_are_the_declared_ones(loader: Loader, rows: int) -> None:
    servable = load_servable(loader)
    outputs = servable.predict(batch(rows))
    declared = loader.artifact.manifest.outputs
    assert list(outputs) == [spec.name for spec in declared]
    score = outputs[declared[0].name]
    assert (score.shape, score.dtype) == ((rows, servable.partial.columns), servable.partial.form.value)
    assert declared[0].width == servable.partial.columns


def test_threads_share_a_servable(loader: Loader) -> None:
    servable = load_servable(loader)
    name = loader.artifact.manifest.outputs[0].name
    expected = servable.predict(batch(50))[name]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: servable.predict(batch(50))[name], range(64)))
    assert all(np.array_equal(answer, expected) for answer in answers)


def test_a_loader_unloads_what_it_loaded(loader: Loader) -> None:
    load_servable(loader)
    loader.unload()


def again(half: Path, root: Path, files: Mapping[str, bytes], self_test: SelfTest | None) -> Servable:
    """The same half with other files or vectors, written, verified and loaded."""
    manifest = msgspec.json.decode((half / "manifest.json").read_bytes(), type=Manifest)
    intact = {name: (half / name).read_bytes() for name in manifest.files}
    return load(root, manifest, {**intact, **files}, self_test=self_test)


def test_the_halfs_own_vectors_decide(half: Path, loader: Loader, tmp_path: Path) -> None:
    test = loader.artifact.manifest.self_test
    assert test is not None
    assert again(half, tmp_path / "intact", {}, test)
    name = loader.artifact.manifest.outputs[0].name
    wrong = {name: [[value + 0.01 for value in row] for row in test.outputs[name]]}
    with pytest.raises(LoadError, match=f"self-test: output {name!r} differs"):
        again(half, tmp_path / "wrong", {}, msgspec.structs.replace(test, outputs=wrong))


def test_nothing_is_unpickled(half: Path, loader: Loader, tmp_path: Path) -> None:
    files = dict.fromkeys(loader.artifact.files, pickle.dumps(Bomb()))
    with pytest.raises(LoadError, match="|".join(re.escape(Path(name).name) for name in files)):
        again(half, tmp_path / "pickled", files, None)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_a_damaged_file_never_reaches_a_loader(half: Path, tmp_path: Path) -> None:
    victim = next(path for path in sorted(half.rglob("*")) if path.is_file() and path.name != "manifest.json")
    victim.write_bytes(victim.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=victim.name):
        open_half(tmp_path, "m", "1", "bank")
