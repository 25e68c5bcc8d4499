"""A local ONNX model of 30 features, no other party."""

from __future__ import annotations

from collections.abc import Iterator

from bench.harness import local
from bench.harness.figures import Row
from bench.harness.stage import Case, Stage, again


def play(stage: Stage) -> Iterator[Row]:
    with stage.parties(hosts=0) as parties:
        service = local.quick(parties)
        yield from Case(stage, "local ONNX", "30 features", parties).usual(again(service.plan(stage, parties)))
