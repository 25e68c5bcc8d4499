"""Components that work at one party alone: reader, split, scale, evaluate."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.unit.training.components.parties import Member
from training.component import Component, ComponentError, ModelPart, Role, Table, Value
from training.components.evaluate import Evaluate
from training.components.reader import Reader
from training.components.scale import Scale
from training.components.split import Split

COMPONENTS: dict[str, type[Component]] = {"reader": Reader, "split": Split, "scale": Scale, "evaluate": Evaluate}


def member() -> Member:
    return Member("bank", Role.GUEST, "bank", ["shop"], {})


def table(features: Any, label: Any = None, columns: tuple[str, ...] = ("a", "b")) -> Table:
    values = np.array(features, dtype=np.float64)
    ids = tuple(f"{row:03}" for row in range(len(values)))
    return Table(ids, columns, values, None if label is None else np.array(label, dtype=np.float64))


async def ran(module: str, inputs: Mapping[str, Value], here: Member | None = None, **given: Any) -> Any:
    component = COMPONENTS[module]
    return await component().run(here or member(), msgspec.convert(given, component.Parameters), inputs)


async def test_reader_gives_the_named_table() -> None:
    here = member()
    here.tables["people"] = table([[1, 2]])
    assert (await ran("reader", {}, here, table="people"))["data"] is here.tables["people"]
    assert ("rows", 1, 0) in here.metrics


async def test_split_keeps_every_row_once_and_ignores_order_and_columns() -> None:
    whole = table(np.arange(1000).reshape(500, 2), np.arange(500) % 2)
    turned = Table(whole.ids[::-1], ("x",), whole.features[::-1, :1])
    here, there = await ran("split", {"data": whole}), await ran("split", {"data": turned})
    assert set(here["test"].ids) == set(there["test"].ids)
    assert {*here["train"].ids, *here["test"].ids} == set(whole.ids)
    assert 70 < len(here["test"].ids) < 130
    for part in here.values():
        rows = [int(name) for name in part.ids]
        np.testing.assert_array_equal(part.features, whole.features[rows])
        np.testing.assert_array_equal(part.label, np.arange(500)[rows] % 2)


async def test_split_by_another_salt_holds_out_other_rows() -> None:
    whole = table(np.zeros((500, 2)))
    first, other = await ran("split", {"data": whole}), await ran("split", {"data": whole}, salt="x")
    assert set(first["test"].ids) != set(other["test"].ids)


async def test_split_of_too_few_rows() -> None:
    with pytest.raises(ComponentError, match="too few"):
        await ran("split", {"data": table([[1, 2]])})


async def test_scale_learns_from_train_alone() -> None:
    train = table([[1, 5], [3, 5], [np.nan, 5]])
    outputs = await ran("scale", {"train": train, "test": table([[np.nan, 7]])})
    model = outputs["model"]
    assert isinstance(model, ModelPart) and model.columns == ("a", "b")
    np.testing.assert_allclose(model.arrays["fill"], [2, 5])
    np.testing.assert_allclose(model.arrays["mean"], [2, 5])
    np.testing.assert_allclose(model.arrays["scale"], [np.sqrt(2 / 3), 1])
    np.testing.assert_allclose(outputs["train"].features.mean(axis=0), [0, 0], atol=1e-12)
    np.testing.assert_allclose(outputs["train"].features[:, 0].std(), 1)
    np.testing.assert_allclose(outputs["test"].features, [[0, 2]])


async def test_scale_of_a_constant_that_does_not_add_up_exactly() -> None:
    model = (await ran("scale", {"train": table([[0.1, 1]] * 7)}))["model"]
    np.testing.assert_array_equal(model.arrays["scale"], [1, 1])


async def test_scale_without_test_has_no_such_output() -> None:
    assert set(await ran("scale", {"train": table([[1, 2], [3, 4]])})) == {"train", "model"}


async def test_scale_names_what_it_cannot_scale() -> None:
    with pytest.raises(ComponentError, match="party bank: column b has no value"):
        await ran("scale", {"train": table([[1, np.nan]])})
    with pytest.raises(ComponentError, match="other columns"):
        await ran("scale", {"train": table([[1, 2]]), "test": table([[1, 2]], columns=("b", "a"))})


async def test_evaluate_logs_known_figures() -> None:
    here = member()
    scores = table([[0.9], [0.4], [0.6], [0.1]], [1, 1, 0, 0], ("score",))
    part = (await ran("evaluate", {"data": scores}, here))["figures"]
    figures = {name: value for name, value, _ in here.metrics}
    loss = -np.mean(np.log([0.9, 0.4, 0.4, 0.9]))
    expected = {"auc": 0.75, "ks": 0.5, "accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "log_loss": loss}
    assert figures == pytest.approx(expected)
    assert (part.kind, part.attributes) == ("evaluate", figures)


async def test_evaluate_at_another_threshold() -> None:
    here = member()
    scores = table([[0.9], [0.4], [0.6], [0.1]], [1, 1, 0, 0], ("score",))
    await ran("evaluate", {"data": scores}, here, threshold=0.7)
    figures = {name: value for name, value, _ in here.metrics}
    assert (figures["precision"], figures["recall"], figures["accuracy"]) == (1, 0.5, 0.75)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (table([[0.5], [0.5]], [1, 1], ("score",)), "both 0 and 1"),
        (table([[0.5], [1.5]], [1, 0], ("score",)), "must be probabilities"),
        (table([[0.5], [np.nan]], [1, 0], ("score",)), "must be probabilities"),
        (table([[0.5], [0.5]], None, ("score",)), "needs a column score and a label"),
        (table([[0.5], [0.5]], [1, 0], ("other",)), "needs a column score and a label"),
    ],
)
async def test_evaluate_refuses(scores: Table, reason: str) -> None:
    with pytest.raises(ComponentError, match=reason):
        await ran("evaluate", {"data": scores})
