"""All halves of a random FATE model, imported, bound, loaded and asked together."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loaders.artifact import Artifact
from loaders.catalog import load_servable, loader_for
from loaders.fate.component import Mode, Site
from loaders.fate.importing import store_half
from loaders.fate.names import FateName
from loaders.loader import Scores, Servable
from loaders.merge import merge_rule
from loaders.registry import open_half
from loaders.signature import Batch
from serving.frontdoor.fate.features import features_in, specs_of
from tests.fate_models import GUEST, TEXTS, FateModel
from tests.fate_reference import Row

SPELLINGS = ("1d", "-1.5F", " 2 ", "0x1.8p-1", "1e0")


@dataclass
class Loaded:
    """Halves by role:party, the guest's first."""

    artifacts: dict[str, Artifact]
    servables: dict[str, Servable]

    def scores(self, rows: Sequence[Mapping[str, Row]]) -> Scores:
        """Raises FeatureError."""
        partials = []
        for site, servable in self.servables.items():
            given = batch(servable, [row[site] for row in rows])
            servable.signature.check(given)
            partials.append(servable.predict(given)[servable.signature.outputs[0].name])
        guest = next(iter(self.servables))
        for host, spec in enumerate(one.partial for one in list(self.servables.values())[1:]):
            assert self.servables[guest].wanted(host) == spec
        return merge_rule(self.artifacts[guest].manifest.merge, self.servables[guest])(partials)


def batch(servable: Servable, rows: Sequence[Row]) -> Batch:
    """What callers of FATE-Serving send, as it arrives at the model."""
    signature = servable.signature
    read = [features_in(row, specs_of([signature])) for row in rows]
    numbers = np.array([[one.get(name, math.nan) for name in signature.numbers] for one, _ in read], dtype=np.float64)
    texts = np.array([[one.get(name) for name in signature.texts] for _, one in read], dtype=np.object_)
    return Batch(numbers.reshape(len(rows), -1), texts.reshape(len(rows), -1))


def load(root: Path, model: FateModel, mode: Mode) -> Loaded:
    artifacts = {}
    for site in model.sites:
        role, _, party = site.partition(":")
        name = FateName(f"{role}#{party}#m", "1")
        registry = root / f"{role}-{party}"
        store_half(registry, model.parts[site], name, Site(role, party, model.hosts, mode), GUEST)
        artifacts[site] = open_half(registry, "m", "1", party)
    assert len({artifact.binding_digest for artifact in artifacts.values()}) == 1
    return Loaded(artifacts, {site: load_servable(loader_for(artifact)) for site, artifact in artifacts.items()})


def users(seed: int, model: FateModel, count: int) -> list[dict[str, Row]]:
    """Raw rows of all parties: numbers, marked values, numbers in every spelling, NaN, texts for a bin, and nothing."""
    source = random.Random(seed)

    def value(name: str) -> object:
        if name in model.worded:
            return source.choice([*TEXTS, *TEXTS, "black", "none", "purple"])
        if source.random() < 0.3:
            return source.choice([-999, 777, 555, 0, 1, 2, 0.0, 1.0, 2.0, 1e-9, "1", "1.0", "2.5", *SPELLINGS])
        if source.random() < 0.1:
            return "NaN"
        if source.random() < 0.2 and name in model.binned:
            return "no number"
        return round(source.uniform(-2.5, 2.5), 3)

    def row(names: Sequence[str]) -> Row:
        return {name: value(name) for name in names if source.random() < 0.9}

    return [{site: row(model.columns[site]) for site in model.sites} for _ in range(count)]
