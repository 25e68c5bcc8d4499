"""Imports an app from its source, under a module name of its own: several versions stand side by side.

The code comes from memory, never again from the disk. It runs with the rights of the process; whoever calls this has
checked that the source is allowed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import re
import sys
from collections.abc import Sequence
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import msgspec

from apps.app import App, AppError, run_examples
from apps.storage import ENTRY, AppSource

_numbers = itertools.count(1)


class ImportedApp:
    """`kind` with its modules, until `forget`; whoever still has an app of it goes on using it. Its name is then
    `name:version`, by which errors call it."""

    def __init__(self, source: AppSource) -> None:
        """Slow. Raises AppError naming the app: its import fails, it is no App, or does not meet its own examples."""
        self._modules = _Modules(source)
        sys.meta_path.insert(0, self._modules)
        try:
            self.kind = _only_app(importlib.import_module(self._modules.root), source)
            self.kind.name = str(source)
            run_examples(self.kind)
        except BaseException as error:
            self.forget()
            if isinstance(error, AppError):
                raise
            if isinstance(error, Exception | SystemExit):
                raise AppError(f"app {source} cannot be imported: {type(error).__name__}: {error}") from error
            raise

    def forget(self) -> None:
        """Take its modules out of the interpreter."""
        if self._modules in sys.meta_path:
            sys.meta_path.remove(self._modules)
        for name in [name for name in sys.modules if self._modules.has(name)]:
            del sys.modules[name]


class _Modules(MetaPathFinder, ExecutionLoader):
    """Finds and runs the modules of one app."""

    def __init__(self, source: AppSource) -> None:
        self._source = source
        self.root = f"tessera_app_{re.sub(r'[^a-z0-9]', '_', source.name)}_{next(_numbers)}"

    def has(self, fullname: str) -> bool:
        return fullname == self.root or fullname.startswith(f"{self.root}.")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not self.has(fullname) or self._file(fullname) is None:
            return None
        spec = ModuleSpec(fullname, self, origin=self.get_filename(fullname), is_package=self.is_package(fullname))
        spec.has_location = True
        return spec

    def is_package(self, fullname: str) -> bool:
        return not self._source.single and (self._file(fullname) or "").endswith(ENTRY)

    def get_filename(self, fullname: str) -> str:
        """For tracebacks; no such file exists."""
        return f"<app {self._source}>/{self._file(fullname)}"

    def get_source(self, fullname: str) -> str:
        """Raises ImportError when there is no such module."""
        return importlib.util.decode_source(self.get_data(self.get_filename(fullname)))

    def get_data(self, path: str) -> bytes:
        """A file of the app, as `pkgutil.get_data` asks for it. Raises OSError."""
        try:
            return self._source.files[path.removeprefix(f"<app {self._source}>/")]
        except KeyError:
            raise FileNotFoundError(f"app {self._source} has no file {path!r}") from None

    def _file(self, fullname: str) -> str | None:
        inside = "/".join(fullname.split(".")[1:])
        candidates = (f"{inside}.py", f"{inside}/{ENTRY}") if inside else (ENTRY,)
        return next((path for path in candidates if path in self._source.files), None)


def _only_app(module: ModuleType, source: AppSource) -> type[App]:
    """The one App of a module that is defined in the app itself."""
    root = module.__name__
    found = {
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, App)
        and (value.__module__ == root or value.__module__.startswith(f"{root}."))
    }
    if len(found) != 1:
        names = ", ".join(sorted(kind.__name__ for kind in found)) or "none"
        raise AppError(f"app {source} must hold exactly one class that implements App, it holds {names}")
    [kind] = found
    if getattr(kind, "name", None) != source.name:
        raise AppError(f"app {source} calls itself {getattr(kind, 'name', None)!r}; its name must be {source.name!r}")
    if inspect.isabstract(kind):
        raise AppError(f"app {source} lacks {', '.join(sorted(kind.__abstractmethods__))}")
    parameters = getattr(kind, "Parameters", None)
    if not (inspect.isclass(parameters) and issubclass(parameters, msgspec.Struct)):
        raise AppError(f"app {source} needs Parameters, a msgspec struct with defaults")
    if not hasattr(kind, "examples"):
        raise AppError(f"app {source} has no examples")
    return kind
