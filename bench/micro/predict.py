"""What the guest does for one row besides asking others: features, local half, wire messages."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from apps.catalog import make_app
from loaders.catalog import load_servable, loader_for
from loaders.loader import Servable
from loaders.registry import open_half
from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import Steps
from loaders.signature import Batch, Signature, TensorSpec
from serving.frontdoor.inference import PredictCodec
from tessera.v1 import inference_pb2 as wire
from tests.artifacts import make_onnx

NAMES = [f"f{number}" for number in range(30)]
SIGNATURE = Signature(
    tuple(TensorSpec(name=name, dtype="float64", shape=(-1,)) for name in NAMES),
    (TensorSpec(name="partial", dtype="float64", shape=(-1, 1)),),
)


def linear_1_row() -> Callable[[], object]:
    """Linear half, 1 row of 30 features. Budget: 15 µs."""
    servable, batch = _linear(), _batch(1, 30)
    return lambda: servable.predict(batch)


def linear_1000_rows() -> Callable[[], object]:
    """Linear half, 1 000 rows of 30 features."""
    servable, batch = _linear(), _batch(1_000, 30)
    return lambda: servable.predict(batch)


def onnx_1_row() -> Callable[[], object]:
    """ONNX logistic regression, 1 row of 2 features."""
    with tempfile.TemporaryDirectory() as folder:
        make_onnx(Path(folder), model="m", version="1", party="bank")
        servable = load_servable(loader_for(open_half(Path(folder), "m", "1", "bank")))
    batch = _batch(1, 2)
    return lambda: servable.predict(batch)


def named_features() -> Callable[[], object]:
    """Serialised request with 30 named numbers to a checked row."""
    request = wire.PredictRequest(service="s", user_id="u", numbers={name: 0.5 for name in NAMES})
    raw, codec, app = request.SerializeToString(), PredictCodec(), make_app("passthrough")
    return lambda: app.preprocess(codec.decode(raw), SIGNATURE)


def packed_features() -> Callable[[], object]:
    """The same in the packed form."""
    vector = wire.FeatureVector(signature_hash=SIGNATURE.digest, numbers=[0.5] * 30)
    raw = wire.PredictRequest(service="s", user_id="u", vector=vector).SerializeToString()
    codec, app = PredictCodec(), make_app("passthrough")
    return lambda: app.preprocess(codec.decode(raw), SIGNATURE)


def _linear() -> Servable:
    steps = Steps(np.zeros(30), np.ones(30), np.full(30, 2.0))
    return LinearServable(SIGNATURE, steps, np.linspace(-1, 1, 30)[:, None], np.array([0.25]))


def _batch(rows: int, columns: int) -> Batch:
    return Batch(np.linspace(-1, 1, rows * columns).reshape(rows, columns), np.empty((rows, 0), dtype=np.object_))
