"""Finds components: `training/components/<module>.py` holds exactly one `Component`. Imported when first used."""

from __future__ import annotations

import difflib
import importlib
import inspect
from functools import cache
from itertools import pairwise
from pathlib import Path

from training import components
from training.component import Component


class CatalogError(Exception):
    """There is no such component, or its file is not as it must be; the text says which there are, or what is wrong."""


def modules() -> list[str]:
    """Known modules, from the names of files and packages; imports none of them."""
    found = sorted(
        path.stem
        for folder in components.__path__
        for path in Path(folder).iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
    )
    for name, following in pairwise(found):
        if name == following:
            raise CatalogError(f"there are two components {name!r}; rename or remove one")
    return found


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
