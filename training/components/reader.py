"""Reads one of the tables in this party's own settings. Nothing leaves the party."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from training.component import Component, Context, PortKind, Value


class ReaderParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`table`: its name in the party's settings."""

    table: Annotated[str, msgspec.Meta(min_length=1, extra={"names": "table"})]


class Reader(Component):
    Parameters: ClassVar[type[msgspec.Struct]] = ReaderParameters
    inputs: ClassVar[Mapping[str, PortKind]] = {}
    outputs: ClassVar[Mapping[str, PortKind]] = {"data": PortKind.DATA}

    async def run(
        self, context: Context, parameters: ReaderParameters, inputs: Mapping[str, Value]
    ) -> Mapping[str, Value]:
        del inputs
        table = await asyncio.to_thread(context.table, parameters.table)
        context.log_metric("rows", len(table.ids))
        return {"data": table}
