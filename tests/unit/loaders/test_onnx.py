"""ONNX models as local models: built here with the onnx package, run by onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import loaders.onnx
from loaders.artifact import Manifest, Merge, MergeKind
from loaders.catalog import load_servable, loader_for
from loaders.loader import LoadError, Servable
from loaders.registry import open_half
from loaders.servables.onnx_tensors import keeps_data_outside
from loaders.signature import Batch, FeatureError, Missing, TensorSpec
from tests.artifacts import make_onnx
from tests.unit.loaders.halves import load

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING


def model(
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: Sequence[Any] = (),
) -> bytes:
    """A serialised model; inputs and outputs are (type, shape) by name, None for the rows."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        list(weights),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("mine", 1)]
    raw: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return raw


def manifest(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Manifest:
    return Manifest(
        model="m",
        version="1",
        role="guest",
        party="bank",
        format="onnx",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        merge=Merge(kind=MergeKind.NONE),
    )


def spec(name: str, dtype: str = "float32", shape: tuple[int, ...] = (-1, 1), **more: Any) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape, **more)


def numbers(*rows: list[float]) -> Batch:
    return Batch(np.array(rows, dtype=np.float64), np.empty((len(rows), 0), dtype=np.object_))


IDENTITY = model([helper.make_node("Identity", ["x"], ["y"])], {"x": (FLOAT, [None, 1])}, {"y": (FLOAT, [None, 1])})


def test_what_was_looked_through_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the file changes in between; and onnxruntime reads a file, which holds nobody up."""
    half = make_onnx(tmp_path, model="m", version="1", party="bank")
    made: list[object] = []
    session = onnxruntime.InferenceSession

    def look(content: Any) -> bool:
        (half / "model.onnx").write_bytes(b"")
        return keeps_data_outside(content)

    def make(readable: object, *rest: Any, **options: Any) -> Any:
        made.append(readable)
        return session(readable, *rest, **options)

    monkeypatch.setattr(loaders.onnx, "keeps_data_outside", look)
    monkeypatch.setattr(onnxruntime, "InferenceSession", make)
    servable = load_servable(loader_for(open_half(tmp_path, "m", "1", "bank")))
    assert servable.predict(numbers([0.0, 0.25]))["score"].tolist() == [[0.5]]
    assert [type(readable) for readable in made] == [str]


def test_a_tensor_is_filled_from_its_columns(tmp_path: Path) -> None:
    make_onnx(tmp_path, model="m", version="1", party="bank")
    servable = load_servable(loader_for(open_half(tmp_path, "m", "1", "bank")))
    assert servable.signature.numbers == ("a", "b")
    score = servable.predict(numbers([1.0, 2.0], [0.0, 0.0]))["score"]
    assert score.dtype == np.float64
    assert score[:, 0].tolist() == pytest.approx([1 / (1 + np.exp(-4.5)), 1 / (1 + np.exp(0.5))], abs=1e-6)


def test_inputs_of_several_types_and_ranks(tmp_path: Path) -> None:
    raw = model(
        [
            helper.make_node("Cast", ["n"], ["nf"], to=DOUBLE),
            helper.make_node("ReduceSum", ["m", "axes"], ["s"], keepdims=0),
            helper.make_node("Add", ["nf", "s"], ["y"]),
            helper.make_node("Identity", ["t"], ["words"]),
        ],
        {"n": (INT64, [None]), "m": (DOUBLE, [None, 2, 2]), "t": (STRING, [None, 1])},
        {"y": (DOUBLE, [None]), "words": (STRING, [None, 1])},
        [helper.make_tensor("axes", INT64, [2], [1, 2])],
    )
    inputs = [spec("n", "int64", (-1,)), spec("t", "string"), spec("m", "float64", (-1, 2, 2))]
    servable = load(
        tmp_path, manifest(inputs, [spec("y", "float64", (-1,)), spec("words", "string")]), {"model.onnx": raw}
    )
    batch = Batch(np.array([[1.0, 1, 2, 3, 4], [2.0, 0, 0, 0, 1]]), np.array([["hello"], ["you"]], dtype=np.object_))
    outputs = servable.predict(batch)
    assert outputs["y"].tolist() == [[11.0], [3.0]]
    assert outputs["words"].tolist() == [["hello"], ["you"]]
    with pytest.raises(FeatureError, match="'n' takes whole numbers"):
        servable.predict(Batch(np.array([[1.5, 0, 0, 0, 0]]), np.array([["x"]], dtype=np.object_)))


def test_rows_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    make_onnx(tmp_path, model="m", version="1", party="bank")
    servable = load_servable(loader_for(open_half(tmp_path, "m", "1", "bank")))
    rows = np.linspace(-3, 3, 2_000).reshape(1_000, 2).tolist()
    whole = servable.predict(numbers(*rows))["score"]
    alone = np.concatenate([servable.predict(numbers(row))["score"] for row in rows[::100]])
    assert np.allclose(whole[::100], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ([spec("z")], [spec("y")], r"takes \['x'\], the manifest declares \['z'\]"),
        ([spec("x"), spec("z")], [spec("y")], "takes"),
        ([spec("x", "float64")], [spec("y")], "'x' is float32 in model.onnx and float64 in the manifest"),
        ([spec("x", shape=(-1, 2))], [spec("y")], "'x' has shape"),
        ([spec("x", shape=(-1,))], [spec("y")], "'x' has shape"),
        ([spec("x")], [spec("z")], "has no output 'z'; it has 'y'"),
        ([spec("x")], [spec("y", "int64")], "'y' is float32"),
    ],
)
def test_declared_and_actual_tensors_must_match(tmp_path: Path, inputs, outputs, text: str) -> None:
    with pytest.raises(LoadError, match=text):
        load(tmp_path, manifest(inputs, outputs), {"model.onnx": IDENTITY})


def test_a_fixed_number_of_rows_is_refused(tmp_path: Path) -> None:
    raw = model([helper.make_node("Identity", ["x"], ["y"])], {"x": (FLOAT, [1, 1])}, {"y": (FLOAT, [1, 1])})
    with pytest.raises(LoadError, match="'x' has shape"):
        load(tmp_path, manifest([spec("x")], [spec("y")]), {"model.onnx": raw})


def test_a_sequence_output_says_how_to_export(tmp_path: Path) -> None:
    raw = model(
        [
            helper.make_node("Identity", ["x"], ["p"]),
            helper.make_node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0]),
        ],
        {"x": (FLOAT, [None, 1])},
        {},
    )
    graph = helper.make_sequence_type_proto(helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, [])))
    import onnx

    loaded = onnx.load_from_string(raw)
    loaded.graph.output.append(helper.make_value_info("y", graph))
    with pytest.raises(LoadError, match="zipmap=False"):
        load(tmp_path, manifest([spec("x")], [spec("y")]), {"model.onnx": loaded.SerializeToString()})


def external(location: str, width: int = 1) -> bytes:
    """A model whose weights lie in another file."""
    weight = helper.make_tensor("w", FLOAT, [width], [1.0] * width)
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return model(
        [helper.make_node("Max", ["x", "w"], ["y"])], {"x": (FLOAT, [None, 1])}, {"y": (FLOAT, [None, width])}, [weight]
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        IDENTITY[:20],
        external("weights.bin"),
        external("/etc/hostname"),
        model(
            [helper.make_node("Mine", ["x"], ["y"], domain="mine")],
            {"x": (FLOAT, [None, 1])},
            {"y": (FLOAT, [None, 1])},
        ),
    ],
    ids=["empty", "garbage", "truncated", "external data", "external data by path", "custom operator"],
)
def test_what_onnxruntime_cannot_run_alone_does_not_load(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(LoadError, match=r"model\.onnx"):
        load(tmp_path, manifest([spec("x")], [spec("y")]), {"model.onnx": raw, "weights.bin": b"\0\0\x80\x3f"})


def test_a_file_in_the_working_directory_is_not_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime looks there by itself, and serves what it finds when the tensor is too large to be folded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.full(300, 7, dtype=np.float32).tobytes())
    half = manifest([spec("x")], [spec("y", shape=(-1, 300))])
    with pytest.raises(LoadError, match="keeps tensors in other files"):
        load(tmp_path / "registry", half, {"model.onnx": external("weights.bin", 300)})


def test_preprocessing_that_nobody_would_run_is_refused(tmp_path: Path) -> None:
    steps = [{"kind": "scale", "mean": "mean.npy", "scale": "scale.npy"}]
    with pytest.raises(LoadError, match="no preprocess steps"):
        load(tmp_path, manifest([spec("x")], [spec("y")]), {"model.onnx": IDENTITY}, preprocess=steps)
    imputed = manifest([spec("x", missing=Missing.IMPUTE)], [spec("y")])
    with pytest.raises(LoadError, match="'x': format 'onnx' imputes nothing"):
        load(tmp_path / "other", imputed, {"model.onnx": IDENTITY})


@pytest.mark.parametrize(
    ("kind", "dtype", "fits", "too_much"),
    [
        (TensorProto.UINT8, "uint8", 255.0, 256.0),
        (TensorProto.UINT8, "uint8", 0.0, -1.0),
        (INT64, "int64", -(2.0**63), 1e20),
        (TensorProto.INT32, "int32", 7.0, math.nan),
        (TensorProto.BOOL, "bool", 1.0, 2.0),
        (FLOAT, "float32", 1e38, 1e39),
        (TensorProto.FLOAT16, "float16", 65504.0, -1e6),
    ],
)
def test_numbers_that_the_type_cannot_hold_are_refused(
    tmp_path: Path, kind: int, dtype: str, fits: float, too_much: float
) -> None:
    raw = model(
        [helper.make_node("Cast", ["x"], ["y"], to=DOUBLE)], {"x": (kind, [None, 1])}, {"y": (DOUBLE, [None, 1])}
    )
    half = manifest([spec("x", dtype, missing=Missing.NATIVE)], [spec("y", "float64")])
    servable = load(tmp_path, half, {"model.onnx": raw})
    assert servable.predict(numbers([fits]))["y"].tolist() == [[pytest.approx(fits, rel=1e-6)]]
    with pytest.raises(FeatureError, match="'x'.*" + dtype):
        servable.predict(numbers([fits], [too_much]))


def test_a_native_missing_value_reaches_the_model(tmp_path: Path) -> None:
    half = manifest([spec("x", missing=Missing.NATIVE)], [spec("y")])
    servable = load(tmp_path, half, {"model.onnx": IDENTITY})
    assert math.isnan(servable.predict(numbers([math.nan]))["y"][0, 0])


def test_scores_that_are_not_one_per_row_are_never_given_out(tmp_path: Path) -> None:
    raw = model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], {"x": (FLOAT, [None, 1])}, {"y": (FLOAT, ["n", 1])}
    )
    servable = load(tmp_path, manifest([spec("x")], [spec("y")]), {"model.onnx": raw})
    with pytest.raises(ValueError, match=r"'y' has shape \(4, 1\) for 2 rows of width 1"):
        servable.predict(numbers([1.0], [2.0]))


def test_no_rows_give_no_scores(tmp_path: Path) -> None:
    servable = load(tmp_path, manifest([spec("x")], [spec("y")]), {"model.onnx": IDENTITY})
    assert servable.predict(Batch(np.empty((0, 1)), np.empty((0, 0), dtype=np.object_)))["y"].shape == (0, 1)


def test_a_score_is_a_number(tmp_path: Path) -> None:
    raw = model([helper.make_node("Identity", ["x"], ["y"])], {"x": (STRING, [None, 1])}, {"y": (STRING, [None, 1])})
    with pytest.raises(LoadError, match="first output"):
        load(tmp_path, manifest([spec("x", "string")], [spec("y", "string")]), {"model.onnx": raw})


def test_the_model_file_has_its_name(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"model\.onnx is not among"):
        load(tmp_path, manifest([spec("x")], [spec("y")]), {"other.onnx": IDENTITY})


def test_a_model_that_refuses_values_is_the_callers_error(tmp_path: Path) -> None:
    raw = model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": (INT64, [None, 1])},
        {"y": (FLOAT, [None, 1])},
        [helper.make_tensor("table", FLOAT, [2], [0.0, 1.0])],
    )
    servable: Servable = load(tmp_path, manifest([spec("x", "int64")], [spec("y")]), {"model.onnx": raw})
    assert servable.predict(numbers([1.0]))["y"].tolist() == [[1.0]]
    with pytest.raises(FeatureError, match="the model refuses the input"):
        servable.predict(numbers([9.0]))
