"""Finds the loader of a format: `loaders/<format>.py`, or the package of that name, holds the one `Loader` of it."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from pathlib import Path

import numpy as np

from loaders.artifact import Artifact, SelfTest
from loaders.loader import Loader, LoadError, Servable
from loaders.signature import Batch, Signature

_CONTRACTS = frozenset(
    {
        *(
            "__init__",
            "artifact",
            "catalog",
            "content",
            "cost",
            "loader",
            "merge",
            "registry",
            "remote",
            "remote_folder",
            "servables",
        ),
        "signature",
    }
)


def formats() -> list[str]:
    """Known formats, from the file names; imports nothing."""
    here = Path(__file__).parent
    found = {path.stem for path in here.glob("*.py")} | {path.parent.name for path in here.glob("*/__init__.py")}
    return sorted(found - _CONTRACTS)


def loader_for(artifact: Artifact) -> Loader:
    """Raises LoadError naming the known formats."""
    name = artifact.manifest.format
    if name not in formats():
        raise LoadError(f"unknown format {name!r}: this version loads {', '.join(formats())}")
    return _loader_class(name)(artifact)


def load_servable(loader: Loader) -> Servable:
    """Load and run the self-test: only then a model counts as loaded. Slow. Raises LoadError."""
    servable = loader.load()
    if loader.artifact.manifest.self_test is not None:
        run_self_test(servable, loader.artifact.manifest.self_test)
    return servable


def run_self_test(servable: Servable, test: SelfTest) -> None:
    """Raises LoadError naming the first output that is not as the artifact says."""
    if not test.numbers or not test.outputs:
        raise LoadError("self-test: it has no rows or no outputs, so it tests nothing")
    try:
        outputs = servable.predict(_vectors(test, servable.signature))
        wanted = {name: np.array(expected, dtype=np.float64) for name, expected in test.outputs.items()}
    except ValueError as error:
        raise LoadError(f"self-test: the half cannot answer its own vectors: {error}") from None
    for name, values in wanted.items():
        if name not in outputs or outputs[name].shape != values.shape or outputs[name].dtype.kind not in "fiub":
            raise LoadError(f"self-test: output {name!r} with numbers of shape {values.shape} is not there")
        if not np.allclose(outputs[name], values, rtol=0, atol=test.tolerance, equal_nan=True):
            raise LoadError(f"self-test: output {name!r} differs from what the artifact declares")


def _vectors(test: SelfTest, signature: Signature) -> Batch:
    """Raises ValueError when the rows are not as wide as the signature."""
    rows = len(test.numbers)
    numbers = np.array(test.numbers, dtype=np.float64).reshape(rows, len(signature.numbers))
    texts = np.array(test.texts or [[]] * rows, dtype=np.object_).reshape(rows, len(signature.texts))
    return Batch(numbers, texts)


@cache
def _loader_class(name: str) -> type[Loader]:
    module = importlib.import_module(f"loaders.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Loader) and value.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0].format != name:
        raise LoadError(f"loaders/{name}.py must hold exactly one Loader with format {name!r}")
    return found[0]
