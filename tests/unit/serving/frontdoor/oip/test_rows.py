"""Tensors and parameters of an inference as the pipeline takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from apps.app import Request, Response
from loaders.catalog import load_servable, loader_for
from loaders.merge import merge_rule
from loaders.registry import open_half
from serving.errors import InvalidRequestError
from serving.frontdoor.oip.models import ModelView
from serving.frontdoor.oip.rows import Asked, answer_of, request_of
from serving.frontdoor.oip.tensors import Tensor, from_values
from serving.pool import ModelHandle, ModelId
from tests.unit.serving.halves import publish

Ask = Callable[..., Request]


def view(root: Path, labels: tuple[str, ...] = ()) -> ModelView:
    publish({"bank": root}, ModelId("m", "1"))
    artifact = open_half(root, "m", "1", "bank")
    loader = loader_for(artifact)
    servable = load_servable(loader)
    rule = merge_rule(artifact.manifest.merge, servable)
    named = msgspec.structs.replace(artifact.manifest.merge, labels=labels)
    artifact = replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, merge=named))
    return ModelView("m", ("", "m", "1"), (ModelHandle(artifact, servable, rule, loader.estimate()),))


@pytest.fixture
async def ask(tmp_path: Path) -> Ask:
    """Of a model of one number `x`."""
    model = await asyncio.to_thread(view, tmp_path)

    def made(*inputs: Tensor, **parameters: Any) -> Request:
        return request_of(Asked("m", "1", "", parameters, inputs or [x(0.5)]), model)

    return made


def x(*values: float, name: str = "x", shape: tuple[int, ...] = ()) -> Tensor:
    return from_values(name, "FP64", shape or (len(values), 1), values)


def users(*names: str) -> Tensor:
    return from_values("user_id", "BYTES", (len(names), 1), names)


async def test_one_row_is_a_case_and_several_are_columns(ask: Ask) -> None:
    one = ask(users("u"), x(0.5), case_id="c")
    assert (one.user_ids, one.numbers, one.case_id, one.columnar) == (("u",), {"x": 0.5}, "c", False)
    many = ask(users("u", "v"), x(0.5, 1.5))
    assert (many.user_ids, many.case_id, many.columnar) == (("u", "v"), "", True)
    assert many.numbers["x"].tolist() == [0.5, 1.5]
    assert ask(x(1.0)).user_ids == ("",)
    assert ask(x(1.0), case_id=17).case_id == "17"


async def test_the_app_gets_all_parameters_that_are_not_reserved_as_texts(ask: Ask) -> None:
    given = {"a": "x", "b": 5, "c": True, "d": 0.25, "case_id": "c", "timeout": 1, "priority": 7, "triton_x": "y"}
    assert ask(**given).parameters == {"a": "x", "b": "5", "c": "true", "d": "0.25"}


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
async def test_a_parameter_is_one_value(ask: Ask, value: Any) -> None:
    for name in ("a", "case_id"):
        with pytest.raises(InvalidRequestError, match=f"parameter '{name}' is a text, a number, true or false"):
            ask(**{name: value})
    ask(headers=value)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([x(1.0), x(1.0)], "an input is there twice"),
        ([x(1.0), users("u", "v")], "different numbers of rows"),
        ([x(1.0), x(1.0, name="user_id")], "'user_id' is BYTES"),
        ([x(1.0, 2.0, shape=(1, 2))], r"'x' has shape \[1, 2\], it takes 1 per row"),
        ([Tensor("x", "INT64", np.array([[2**53 + 2]]))], "integers beyond 2"),
        ([from_values("x", "BYTES", (1, 1), [b"\xff"])], "not UTF-8"),
        ([from_values("user_id", "BYTES", (1, 1), [b"\xff"])], "not UTF-8"),
    ],
)
async def test_what_cannot_be_used_is_named(ask: Ask, inputs: list[Tensor], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        ask(*inputs)


async def test_a_case_is_one_row(ask: Ask) -> None:
    with pytest.raises(InvalidRequestError, match="'case_id' is for one row, the inputs have 2"):
        ask(x(1.0, 2.0), case_id="c")


async def test_classes_of_the_score_have_the_names_that_the_model_gives_them(tmp_path: Path) -> None:
    model = await asyncio.to_thread(view, tmp_path, ("low", "high"))
    response = Response(np.array([[0.25, 0.75]]), "m", "1", (), complete=True)
    asked = Asked("m", "1", "", {}, [], outputs=("partial", "partial"), classes=(2, 0))
    named, plain = answer_of(response, model, asked).outputs
    assert named.array.tolist() == [[b"0.750000:1:high", b"0.250000:0:low"]]
    assert plain.array.tolist() == [[0.25, 0.75]]


async def test_classes_have_no_names_where_the_versions_of_a_service_name_them_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, other = [
        await asyncio.to_thread(view, tmp_path / place, names)
        for place, names in (("a", ("low", "high")), ("b", ("high", "low")))
    ]
    service = replace(first, handles=(*first.handles, *other.handles))
    response = Response(np.array([[0.25, 0.75]]), "m", "2", (), complete=True)
    asked = Asked("m", "", "", {}, [], outputs=("partial",), classes=(1,))
    assert answer_of(response, service, asked).outputs[0].array.tolist() == [[b"0.750000:1"]]
