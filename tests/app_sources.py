"""Apps in a storage folder, as an operator would put them there."""

from __future__ import annotations

from pathlib import Path

from apps.storage import LocalFiles, read_app

TIMES = """
from __future__ import annotations

from typing import ClassVar

import msgspec

from apps.app import App, Example, Request, Result, features_of


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plus: float = 0.0


class Times(App):
    name: ClassVar[str] = "{name}"
    Parameters: ClassVar[type[msgspec.Struct]] = Parameters
    examples = (Example((0.5,), ({example},)),)

    def preprocess(self, request: Request, signature):
        return features_of(request, signature)

    def postprocess(self, request: Request, result: Result) -> Result:
        if "fail" in request.parameters:
            raise ZeroDivisionError("a secret of the app")
        return Result(result.scores * {factor} + self.parameters.plus)
"""


def times(factor: float, name: str = "risk", example: float | None = None) -> str:
    """The source of an app that multiplies scores."""
    return TIMES.format(name=name, factor=factor, example=0.5 * factor if example is None else example)


def store(root: Path, version: str, source: str, name: str = "risk") -> str:
    """Puts a single file there; returns the digest."""
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / f"{version}.py").write_text(source)
    return read_app(LocalFiles(root), name, version).digest


def store_package(root: Path, version: str, files: dict[str, str], name: str = "risk") -> str:
    for path, content in files.items():
        target = root / name / version / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return read_app(LocalFiles(root), name, version).digest
