"""Local ONNX models of 30 features: a quick one, one that takes as long as it is told, and one that is large."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from loaders.artifact import HalfRef, Manifest, Merge, MergeKind, SelfTest
from loaders.registry import bind, half_path, write_half
from loaders.signature import Signature, TensorSpec

FEATURES = 30
NAMES = tuple(f"f{position}" for position in range(FEATURES))
TOLERANCE = 1e-5
_WIDE = 2_048
_ROWS = ([0.0] * FEATURES, [(position % 5 - 2) / 4 for position in range(FEATURES)])
_TRIALS = 3


def features() -> list[float]:
    """Of every request."""
    return _ROWS[1]


def write_quick(root: Path, party: str, model: str) -> tuple[Signature, float]:
    """Logistic regression; its signature, and the score of `features`."""
    weights = np.linspace(-0.5, 0.5, FEATURES, dtype=np.float32)[:, None]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["linear"]), helper.make_node("Sigmoid", ["linear"], ["score"])]
    return _write(root, party, model, _serialised(nodes, {"w": weights}))


def write_slow(root: Path, party: str, model: str, seconds: float) -> tuple[Signature, float]:
    """A deep network that takes about `seconds` for one row on one core of this machine."""
    one = _timed(_deep(1))
    each = max(1e-4, (_timed(_deep(5)) - one) / 4)
    return _write(root, party, model, _deep(max(1, round(seconds / each))))


def write_large(root: Path, party: str, model: str, version: str, megabytes: int) -> tuple[Signature, float]:
    """Quick to run and slow to load: it looks the weights of a row up in a table."""
    rows = megabytes * 1_000_000 // (4 * FEATURES)
    table = np.random.default_rng(int(version)).normal(0, 0.1, (rows, FEATURES)).astype(np.float32)
    nodes = [
        helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
        helper.make_node("Gather", ["table", "place"], ["weights"]),
        helper.make_node("Mul", ["x", "weights"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "axes"], ["linear"]),
        helper.make_node("Sigmoid", ["linear"], ["score"]),
    ]
    return _write(root, party, model, _serialised(nodes, {"table": table, "axes": np.array([1])}), version)


def _deep(layers: int) -> bytes:
    source = np.random.default_rng(1)
    wide = source.normal(0, _WIDE**-0.5, (_WIDE, _WIDE)).astype(np.float32)
    tensors = {
        "first": source.normal(0, 1, (FEATURES, _WIDE)).astype(np.float32),
        "wide": wide,
        "last": np.full((_WIDE, 1), 1 / _WIDE, dtype=np.float32),
    }
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    for layer in range(layers):
        nodes.append(helper.make_node("MatMul", [f"h{layer}", "wide"], [f"m{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [f"h{layer + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"h{layers}", "last"], ["linear"]))
    nodes.append(helper.make_node("Sigmoid", ["linear"], ["score"]))
    return _serialised(nodes, tensors)


def _serialised(nodes: list[onnx.NodeProto], tensors: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _timed(model: bytes) -> float:
    """The best of a few runs of one row."""
    session, row = _session(model), np.array([features()], dtype=np.float32)
    took = []
    for _ in range(_TRIALS):
        begun = time.perf_counter()
        session.run(None, {"x": row})
        took.append(time.perf_counter() - begun)
    return min(took)


def _write(root: Path, party: str, model: str, raw: bytes, version: str = "1") -> tuple[Signature, float]:
    session = _session(raw)
    scores = [session.run(None, {"x": np.array([row], dtype=np.float32)})[0][0].tolist() for row in _ROWS]
    manifest = Manifest(
        model=model,
        version=version,
        role="guest",
        party=party,
        format="onnx",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, FEATURES), columns=NAMES),),
        outputs=(TensorSpec(name="score", dtype="float32", shape=(-1, 1)),),
        merge=Merge(kind=MergeKind.NONE),
        self_test=SelfTest(numbers=[list(row) for row in _ROWS], outputs={"score": scores}, tolerance=TOLERANCE),
    )
    digest = write_half(root, manifest, {"model.onnx": raw})
    bind(half_path(root, model, version, "guest", party), [HalfRef("guest", party, digest)])
    return Signature(manifest.inputs, manifest.outputs), float(scores[1][0])
