"""Exports with anything in them: a half loads and answers with numbers, or refuses with a reason. Nothing else."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from loaders.fate.compiling import compile_half
from loaders.fate.component import ComponentError, Mode, Site
from loaders.fate.export import ExportError
from loaders.signature import Batch, FeatureError
from tessera.compat import fate_model_pb2 as wire
from tests.damage import spoil
from tests.fate_models import Recipe, make

RECIPES = (
    Recipe("lr"),
    Recipe("poisson"),
    Recipe("fm"),
    Recipe("scorecard"),
    Recipe("ovr", classes=3),
    Recipe("trees"),
    Recipe("trees", strategy="mix", hosts=2, classes=3),
    Recipe("lr", texts=True),
)
MESSAGES = {
    "Scale": "Scale",
    "FeatureBinning": "FeatureBinning",
    "FeatureSelection": "FeatureSelection",
    "FeatureImputation": "FeatureImputation",
    "OneHot": "OneHot",
    "DataIO": "DataIO",
    "DataTransform": "DataIO",
    "HeteroLogisticRegression": "LRModel",
    "HeteroPoissonRegression": "PoissonModel",
    "HeteroFM": "FMModel",
    "HeteroSecureBoostingTree": "BoostingTreeModel",
}
WORDS = ("", "nan", "inf", "x", "host:10000", "guest:9999", "1e999", "g0")


def spoiled(source: random.Random, parts: dict[str, bytes]) -> dict[str, bytes]:
    name = source.choice(sorted(name for name in parts if not name.startswith("pipeline")))
    kind = name.rpartition("/")[2]
    ending = "Meta" if kind.endswith("Meta") else "Param"
    message = getattr(wire, MESSAGES[kind.removesuffix(ending)] + ending).FromString(parts[name])
    for _ in range(source.randint(1, 4)):
        spoil(source, message, WORDS)
    return {**parts, name: message.SerializeToString()}


def check(seeds: range) -> None:
    ends = {"answered": 0, "refused": 0}
    for seed in seeds:
        source = random.Random(seed)
        model = make(seed % 41, RECIPES[seed % len(RECIPES)])
        role, _, party = (place := source.choice(model.sites)).partition(":")
        parts = spoiled(source, model.parts[place])
        try:
            servable = compile_half(parts, Site(role, party, model.hosts, source.choice(list(Mode)))).servable()
            rows = np.repeat([[0.5], [-1.0], [math.nan]], len(servable.signature.numbers), axis=1)
            texts = np.full((3, len(servable.signature.texts)), "x", dtype=np.object_)
            values = servable.predict(Batch(rows, texts))[servable.signature.outputs[0].name]
            assert np.isfinite(values).all()
            ends["answered"] += 1
        except (ExportError, ComponentError, FeatureError):
            ends["refused"] += 1
    assert min(ends.values()) > len(seeds) / 20, ends


def test_a_spoiled_export_answers_with_numbers_or_refuses() -> None:
    check(range(400))


@pytest.mark.soak
def test_many_spoiled_exports_answer_with_numbers_or_refuse() -> None:
    check(range(400, 30_000))
