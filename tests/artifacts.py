"""Artifacts for tests: real halves in real registries, small enough to compute by hand."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np

from loaders.artifact import HalfRef, Link, Manifest, Merge, MergeKind, SelfTest
from loaders.registry import bind, half_path, write_half
from loaders.signature import TensorSpec

SYNTHETIC = [-1.5, 0.25, 2.0]


@dataclass(frozen=True)
class Pair:
    """Two bound halves."""

    guest: Path
    host: Path
    binding_digest: str


def npy(values: object, dtype: type[np.generic] = np.float64) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, dtype=dtype))
    return buffer.getvalue()


def linear_half(
    model: str, version: str, role: str, party: str, weights: Mapping[str, float], intercept: float | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """A linear half of the format `tessera`, not yet written."""
    vector = np.array(list(weights.values()))
    rows = [[value * (1 + column) for column in range(vector.size)] for value in SYNTHETIC]
    outputs = [[float(np.dot(row, vector)) + (intercept or 0.0)] for row in rows]
    manifest = Manifest(
        model=model,
        version=version,
        role=role,
        party=party,
        format="tessera",
        inputs=tuple(TensorSpec(name=name, dtype="float64", shape=(-1,), range=(-3.0, 3.0)) for name in weights),
        outputs=(TensorSpec(name="partial", dtype="float64", shape=(-1, 1)),),
        merge=Merge(kind=MergeKind.SUM, link=Link.SIGMOID),
        self_test=SelfTest(numbers=rows, outputs={"partial": outputs}),
    )
    files = {"weights.npy": npy(vector)}
    return manifest, files if intercept is None else {**files, "intercept.npy": npy(intercept)}


def make_bound_pair(
    guest_root: Path,
    host_root: Path,
    *,
    model: str,
    version: str,
    guest: str,
    host: str,
    guest_weights: Mapping[str, float],
    host_weights: Mapping[str, float],
    intercept: float,
    stand_ins: Mapping[str, list[float]] = MappingProxyType({}),
) -> Pair:
    """The halves of one linear model in two registries, bound to each other. `stand_ins` are the guest's."""
    half, files = linear_half(model, version, "guest", guest, guest_weights, intercept)
    guest_digest = write_half(guest_root, msgspec.structs.replace(half, stand_ins=dict(stand_ins)), files)
    host_digest = write_half(host_root, *linear_half(model, version, "host", host, host_weights))
    binding = [HalfRef("guest", guest, guest_digest), HalfRef("host", host, host_digest)]
    paths = (
        half_path(guest_root, model, version, "guest", guest),
        half_path(host_root, model, version, "host", host),
    )
    digests = {bind(path, binding) for path in paths}
    assert len(digests) == 1
    return Pair(*paths, digests.pop())


def make_onnx(root: Path, *, model: str, version: str, party: str, further: bool = False) -> Path:
    """A local ONNX model: score = sigmoid(a + 2 b - 0.5), float32; one input tensor of two columns. `further`: it also
    gives `same`, its input; `larger`, the position of the larger column, one number a row; `word`, that as a text."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["linear"]),
            helper.make_node("Add", ["linear", "c"], ["shifted"]),
            helper.make_node("Sigmoid", ["shifted"], ["score"]),
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("ArgMax", ["x"], ["larger"], axis=1, keepdims=0),
            helper.make_node("Cast", ["larger"], ["word"], to=TensorProto.STRING),
        ],
        "logistic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, [None, 2]),
            helper.make_tensor_value_info("larger", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("word", TensorProto.STRING, [None]),
        ],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [2, 1], [1.0, 2.0]),
            helper.make_tensor("c", TensorProto.FLOAT, [1], [-0.5]),
        ],
    )
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    others = (
        TensorSpec(name="same", dtype="float32", shape=(-1, 2)),
        TensorSpec(name="larger", dtype="int64", shape=(-1,)),
        TensorSpec(name="word", dtype="string", shape=(-1,)),
    )
    manifest = Manifest(
        model=model,
        version=version,
        role="guest",
        party=party,
        format="onnx",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 2), columns=("a", "b")),),
        outputs=(TensorSpec(name="score", dtype="float32", shape=(-1, 1)), *(others if further else ())),
        merge=Merge(kind=MergeKind.NONE),
        self_test=SelfTest(
            numbers=[[0.0, 0.25], [1.0, 0.0]], outputs={"score": [[0.5], [0.6224593312]]}, tolerance=1e-6
        ),
    )
    digest = write_half(root, manifest, {"model.onnx": raw})
    half = half_path(root, model, version, "guest", party)
    bind(half, [HalfRef("guest", party, digest)])
    return half


def make_words(root: Path, *, model: str, version: str, party: str) -> Path:
    """A local ONNX model of one text: score = 1 for `grün`, else 0, float32."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Equal", ["colour", "green"], ["same"]),
            helper.make_node("Cast", ["same"], ["score"], to=TensorProto.FLOAT),
        ],
        "words",
        [helper.make_tensor_value_info("colour", TensorProto.STRING, [None])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None])],
        [helper.make_tensor("green", TensorProto.STRING, [1], ["grün".encode()])],
    )
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    manifest = Manifest(
        model=model,
        version=version,
        role="guest",
        party=party,
        format="onnx",
        inputs=(TensorSpec(name="colour", dtype="string", shape=(-1,)),),
        outputs=(TensorSpec(name="score", dtype="float32", shape=(-1,)),),
        merge=Merge(kind=MergeKind.NONE),
    )
    digest = write_half(root, manifest, {"model.onnx": raw})
    half = half_path(root, model, version, "guest", party)
    bind(half, [HalfRef("guest", party, digest)])
    return half
