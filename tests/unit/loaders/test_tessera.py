"""Linear halves: what loads computes right, and what does not load says why."""

from __future__ import annotations

import io
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loaders.artifact import Manifest, SelfTest
from loaders.loader import LoadError
from loaders.signature import Batch, Missing, TensorSpec
from tests.artifacts import linear_half, npy
from tests.unit.loaders.halves import load

WEIGHTS = {"a": 0.5, "b": -0.25}
PREPROCESS = [
    {"kind": "impute", "values": "fill.npy"},
    {"kind": "scale", "mean": "mean.npy", "scale": "scale.npy"},
]
ARRAYS = {"fill.npy": npy([10.0, 20.0]), "mean.npy": npy([1.0, 2.0]), "scale.npy": npy([2.0, 4.0])}


def numbers(*rows: list[float]) -> Batch:
    matrix = np.array(rows, dtype=np.float64)
    return Batch(matrix, np.empty((len(rows), 0), dtype=np.object_))


def half(**changes: object) -> tuple[Manifest, dict[str, bytes]]:
    manifest, files = linear_half("m", "1", "guest", "bank", WEIGHTS, 0.5)
    return msgspec.structs.replace(manifest, **{"self_test": None, **changes}), files


def promising(count: int) -> bytes:
    """A `.npy` file whose header promises `count` numbers, with none behind it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (count,)})
    return buffer.getvalue()


def imputed() -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, dtype="float64", shape=(-1,), missing=Missing.IMPUTE) for name in WEIGHTS)


def test_the_partial_is_the_linear_value(tmp_path: Path) -> None:
    servable = load(tmp_path, *half())
    partial = servable.predict(numbers([1.0, 2.0], [3.0, 0.0]))["partial"]
    assert partial.tolist() == [[0.5 + 0.5 - 0.5], [0.5 + 1.5]]
    assert partial.dtype == np.float64


def test_raw_features_are_imputed_and_scaled(tmp_path: Path) -> None:
    manifest, files = half(inputs=imputed(), preprocess=PREPROCESS)
    servable = load(tmp_path, manifest, {**files, **ARRAYS})
    partial = servable.predict(numbers([3.0, 6.0], [math.nan, 6.0], [math.nan, math.nan]))["partial"]
    scaled = [[1.0, 1.0], [4.5, 1.0], [4.5, 4.5]]
    assert partial[:, 0].tolist() == pytest.approx([0.5 + 0.5 * a - 0.25 * b for a, b in scaled], abs=1e-14)


def test_a_half_may_be_wider_than_one(tmp_path: Path) -> None:
    manifest, files = half(outputs=(TensorSpec(name="partial", dtype="float64", shape=(-1, 3)),))
    wide = {**files, "weights.npy": npy([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "intercept.npy": npy([0.1, 0.2, 0.3])}
    partial = load(tmp_path, manifest, wide).predict(numbers([1.0, 10.0]))["partial"]
    assert partial[0].tolist() == pytest.approx([41.1, 52.2, 63.3])


@pytest.mark.parametrize(
    ("files", "changes", "text"),
    [
        ({"weights.npy": npy([1.0])}, {}, r"weights\.npy has shape \(1, 1\) for 2 features"),
        ({"weights.npy": npy([[[1.0]], [[2.0]]])}, {}, r"weights\.npy has shape"),
        ({"weights.npy": npy([math.nan, 1.0])}, {}, r"weights\.npy must hold finite"),
        ({"weights.npy": npy([1.0, 2.0])[:-4]}, {}, r"weights\.npy is not a \.npy array"),
        ({"weights.npy": b""}, {}, r"weights\.npy is not a \.npy array"),
        ({"intercept.npy": npy([1.0, 2.0])}, {}, r"intercept\.npy has shape \(2,\) for width 1"),
        ({"weights.npy": promising(900_000_000_000_000)}, {}, r"weights\.npy is not a \.npy array"),
        ({"weights.npy": npy([[1.0, 2.0], [3.0, 4.0]])}, {}, r"weights\.npy gives width 2, the declared output has 1"),
        ({**ARRAYS, "scale.npy": npy([1e-320, 1.0])}, {"preprocess": PREPROCESS}, "do not go together"),
        ({}, {"preprocess": PREPROCESS[1:]}, r"mean\.npy is not among"),
        ({}, {"preprocess": [{"kind": "bin"}]}, "known are impute, then scale"),
        ({}, {"preprocess": [PREPROCESS[1], PREPROCESS[0]]}, "known are impute, then scale"),
        ({**ARRAYS, "scale.npy": npy([1.0, 0.0])}, {"preprocess": PREPROCESS}, "positive"),
        ({**ARRAYS, "mean.npy": npy([1.0])}, {"preprocess": PREPROCESS}, r"mean\.npy must hold 2 finite"),
        ({}, {"preprocess": [{"kind": "impute"}]}, "values must name a file"),
        ({}, {"inputs": imputed()}, "no impute step"),
        ({}, {"inputs": (TensorSpec(name="a", dtype="string", shape=(-1,)),)}, "numbers only"),
        (
            {},
            {"inputs": (TensorSpec(name="v", dtype="float64", shape=(-1, 2), missing=Missing.NATIVE),)},
            "natively",
        ),
        ({}, {"format": "pickle"}, "unknown format 'pickle': this version loads fate, onnx, tessera, trees"),
    ],
)
def test_what_cannot_be_served_does_not_load(tmp_path: Path, files, changes, text: str) -> None:
    manifest, intact = half(**changes)
    with pytest.raises(LoadError, match=text):
        load(tmp_path, manifest, {**intact, **files})


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(), Bomb()], dtype=np.object_), allow_pickle=True)
    manifest, files = half()
    with pytest.raises(LoadError, match=r"weights\.npy is not"):
        load(tmp_path, manifest, {**files, "weights.npy": buffer.getvalue()})


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_a_half_that_fails_its_own_vectors_does_not_load(tmp_path: Path) -> None:
    manifest, files = linear_half("m", "1", "guest", "bank", WEIGHTS, 0.5)
    with pytest.raises(LoadError, match="self-test: output 'partial' differs"):
        load(tmp_path, manifest, {**files, "intercept.npy": npy(0.5001)})
    wrong = msgspec.structs.replace(manifest.self_test, outputs={"score": [[0.0]]})
    with pytest.raises(LoadError, match="self-test: output 'score'"):
        load(tmp_path / "other", manifest, files, self_test=wrong)


@pytest.mark.parametrize(
    ("vectors", "text"),
    [
        (SelfTest(numbers=[], outputs={"partial": []}), "tests nothing"),
        (SelfTest(numbers=[[1.0, 2.0]], outputs={}), "tests nothing"),
        (SelfTest(numbers=[[1.0]], outputs={"partial": [[0.75]]}), "cannot answer"),
        (SelfTest(numbers=[[1.0], [1.0, 2.0]], outputs={"partial": [[0.5], [0.5]]}), "cannot answer"),
        (SelfTest(numbers=[[1.0, 2.0]], outputs={"partial": [[0.5], [0.5, 1.0]]}), "cannot answer"),
        (SelfTest(numbers=[[1.0, None]], outputs={"partial": [[0.5]]}), "no finite result"),
        (SelfTest(numbers=[[1.0, 2.0]], outputs={"partial": [[0.5, 0.5]]}), "is not there"),
    ],
)
def test_vectors_that_do_not_fit_the_half_are_refused(tmp_path: Path, vectors: SelfTest, text: str) -> None:
    with pytest.raises(LoadError, match=f"self-test: .*{text}"):
        load(tmp_path, *half(self_test=vectors))
