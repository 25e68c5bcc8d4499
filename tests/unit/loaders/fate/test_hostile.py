"""Exports with anything in them: a half loads and answers with numbers, or refuses with a reason. Nothing else."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from loaders.fate.compiling import compile_half
from loaders.fate.component import ComponentError, Mode, Site
from loaders.fate.export import ExportError
from loaders.signature import Batch, FeatureError
from tessera.compat import fate_model_pb2 as wire
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
NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0, 5e-324)
INTEGERS = (0, -1, 1, 7, 100_000, 2**31 - 1, -(2**31))
WORDS = ("", "nan", "inf", "x", "host:10000", "guest:9999", "1e999", "g0")


def within(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        else:
            inner = value if field.is_repeated else (value,)
        for one in inner:
            yield from within(one)


def odd(source: random.Random, field: Any) -> object:
    by_type = {
        field.CPPTYPE_DOUBLE: NUMBERS,
        field.CPPTYPE_INT32: INTEGERS,
        field.CPPTYPE_INT64: INTEGERS,
        field.CPPTYPE_BOOL: (False, True),
        field.CPPTYPE_STRING: WORDS,
    }
    return source.choice(by_type[field.cpp_type])


def spoil(source: random.Random, whole: Any) -> None:
    """One value somewhere becomes odd, appears or goes."""
    message = source.choice(list(within(whole)))
    field = source.choice(list(message.DESCRIPTOR.fields))
    value = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        kinds = field.message_type.fields_by_name
        key = source.choice(sorted(value)) if value and source.random() < 0.7 else odd(source, kinds["key"])
        if kinds["value"].message_type:
            value[key].SetInParent()
        else:
            value[key] = odd(source, kinds["value"])
    elif field.is_repeated and value and source.random() < 0.5:
        value.pop()
    elif field.is_repeated:
        value.add() if field.message_type else value.append(odd(source, field))
    elif field.message_type:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, odd(source, field))


def spoiled(source: random.Random, parts: dict[str, bytes]) -> dict[str, bytes]:
    name = source.choice(sorted(name for name in parts if not name.startswith("pipeline")))
    kind = name.rpartition("/")[2]
    ending = "Meta" if kind.endswith("Meta") else "Param"
    message = getattr(wire, MESSAGES[kind.removesuffix(ending)] + ending).FromString(parts[name])
    for _ in range(source.randint(1, 4)):
        spoil(source, message)
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
