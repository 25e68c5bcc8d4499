"""Finds an app by name: `apps/<name>.py` holds the one `App` whose `name` is that name."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from pathlib import Path

import msgspec

from apps.app import App, AppError, run_examples

_CONTRACTS = frozenset({"__init__", "app", "catalog", "expression", "importing", "remote", "storage"})


class UnknownAppError(LookupError):
    """No app of this name; the text names those that there are."""


class AppParametersError(ValueError):
    """The parameters do not fit the app; the text names the app and the parameter."""


def names() -> list[str]:
    """Known apps, from the file names; imports nothing."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _CONTRACTS)


def make_app(name: str, parameters: str = "") -> App:
    """The app with its parameters, a JSON object; empty means all defaults. Raises UnknownAppError,
    AppParametersError, or AppError when the app does not meet its own examples."""
    return with_parameters(_app_class(name), parameters)


def with_parameters(kind: type[App], parameters: str) -> App:
    """An app of this kind. Raises AppParametersError, or AppError when the kind itself fails."""
    try:
        return kind(msgspec.json.decode(parameters or "{}", type=kind.Parameters))
    except msgspec.DecodeError as error:
        raise AppParametersError(f"parameters of app {kind.name!r}: {error}") from None
    except Exception as error:
        raise AppError(f"app {kind.name!r} failed with its parameters: {type(error).__name__}") from error


@cache
def _app_class(name: str) -> type[App]:
    if name not in names():
        raise UnknownAppError(f"unknown app {name!r}: there are {', '.join(names())}")
    module = importlib.import_module(f"apps.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, App) and value.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0].name != name:
        raise UnknownAppError(f"apps/{name}.py must hold exactly one App with name {name!r}")
    run_examples(found[0])
    return found[0]
