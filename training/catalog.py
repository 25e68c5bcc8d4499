"""Finds components: `training/components/<module>.py` holds exactly one `Component`. Imported when first used."""

from __future__ import annotations

import difflib
import importlib
import inspect
from functools import cache
from pathlib import Path

from training.component import Component


class CatalogError(Exception):
    """There is no such component; the text says which there are."""


def modules() -> list[str]:
    """Known modules, from the file names; imports nothing."""
    return sorted(path.stem for path in (Path(__file__).parent / "components").glob("*.py") if path.stem != "__init__")


@cache
def component(module: str) -> type[Component]:
    """Raises CatalogError with the nearest match."""
    if module not in modules():
        near = difflib.get_close_matches(module, modules(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(modules())}"
        raise CatalogError(f"unknown module {module!r}; {hint}")
    loaded = importlib.import_module(f"training.components.{module}")
    found = [
        value
        for value in vars(loaded).values()
        if inspect.isclass(value) and issubclass(value, Component) and value.__module__ == loaded.__name__
    ]
    if len(found) != 1:
        raise CatalogError(f"training/components/{module}.py must hold exactly one component, not {len(found)}")
    return found[0]
