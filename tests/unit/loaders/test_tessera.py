"""Linear halves: what loads computes right, and what does not load says why."""

from __future__ import annotations

import io
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.artifact import Manifest
from loaders.loader import LoadError
from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import PreprocessError, Steps, compile_steps
from loaders.signature import Batch, Missing, Signature, TensorSpec
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
        ({}, {"format": "pickle"}, "unknown format 'pickle': this version loads onnx, tessera"),
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


def test_the_estimate_is_known_before_the_load(tmp_path: Path) -> None:
    servable = load(tmp_path, *half())
    assert servable.signature.numbers == ("a", "b")


finite = st.floats(-1e6, 1e6)


@given(
    st.integers(1, 40).flatmap(
        lambda k: st.tuples(
            st.lists(st.lists(finite, min_size=k, max_size=k), min_size=1, max_size=12),
            st.lists(st.floats(-10, 10), min_size=k, max_size=k),
        )
    )
)
def test_a_row_gives_the_same_bits_alone_and_in_a_batch(case: tuple[list[list[float]], list[float]]) -> None:
    rows, weights = case
    width = len(weights)
    signature = Signature(
        (TensorSpec(name="v", dtype="float64", shape=(-1, width)),),
        (TensorSpec(name="partial", dtype="float64", shape=(-1, 1)),),
    )
    steps = Steps(np.full(width, np.nan), np.zeros(width), np.ones(width))
    servable = LinearServable(signature, steps, np.array(weights)[:, None], np.array([0.25]))
    whole = servable.predict(numbers(*rows))["partial"]
    alone = np.concatenate([servable.predict(numbers(row))["partial"] for row in rows])
    assert whole.tobytes() == alone.tobytes()
    exact = [math.fsum([0.25, *(x * w for x, w in zip(row, weights, strict=True))]) for row in rows]
    assert np.allclose(whole[:, 0], exact, rtol=1e-9, atol=1e-6)


def test_steps_are_optional() -> None:
    steps = compile_steps([], 2, pytest.fail)
    assert np.isnan(steps.fill).all()
    assert (steps.mean.tolist(), steps.scale.tolist()) == ([0.0, 0.0], [1.0, 1.0])
    with pytest.raises(PreprocessError):
        compile_steps([{"kind": "scale", "mean": "m"}], 2, lambda name: np.zeros(2))
