"""Judges predictions against the label. The guest alone has both; nothing leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from training.component import Component, ComponentError, Context, ModelPart, PortKind, Role, Table, Value
from training.evaluation import EvaluationError, binary_figures


class EvaluateParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`threshold`: from which score on a row counts as label 1."""

    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


class Evaluate(Component):
    """Input `data`: column `score`, the probability of label 1, and the label. Figures are logged as metrics, and are
    the attributes of the model part `figures`."""

    roles: ClassVar[frozenset[Role]] = frozenset({Role.GUEST})
    libraries: ClassVar[frozenset[str]] = frozenset({"sklearn"})
    Parameters: ClassVar[type[msgspec.Struct]] = EvaluateParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {"data": PortKind.DATA}
    outputs: ClassVar[Mapping[str, PortKind]] = {"figures": PortKind.MODEL}

    async def run(
        self, context: Context, parameters: EvaluateParameters, inputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        table = inputs["data"]
        if not isinstance(table, Table) or table.label is None or "score" not in table.columns:
            raise ComponentError(f"evaluate at party {context.party}: input data needs a column score and a label")
        score = table.features[:, table.columns.index("score")]
        try:
            figures = await asyncio.to_thread(binary_figures, table.label, score, parameters.threshold)
        except EvaluationError as error:
            raise ComponentError(f"evaluate at party {context.party}: {error}") from None
        for name, value in figures.items():
            context.log_metric(name, value)
        return {"figures": ModelPart("evaluate", ("score",), {}, figures)}
