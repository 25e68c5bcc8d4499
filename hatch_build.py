"""Compiles modules into extensions beside them: those that pyproject.toml names, with mypyc and a C compiler."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SHARED = "tessera_compiled"
"""What they have in common is an extension of its own."""
_SETUP = """
# The types have been checked: here what the modules import need not be installed.
import sys
from mypyc.build import mypycify
from setuptools import setup

built, group, *modules = sys.argv[1:]
leniently = ["--config-file=", "--explicit-package-bases", "--ignore-missing-imports", "--follow-imports=silent"]
extensions = mypycify([*leniently, *modules], opt_level="3", group_name=group, target_dir=built)
arguments = ["build_ext", "--inplace", "--build-temp", built, "--build-lib", built]
setup(name=group, packages=[], py_modules=[], ext_modules=extensions, script_args=arguments)
"""


class CompiledModules(BuildHookInterface[Any]):
    """Only for wheels, and only when asked for. Raises CalledProcessError when the compiler does not succeed."""

    def clean(self, versions: list[str]) -> None:
        for path in self._extensions():
            path.unlink()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.clean([version])
        with tempfile.TemporaryDirectory() as built:
            command = [sys.executable, "-c", _SETUP, built, _SHARED, *self._modules]
            subprocess.run(command, cwd=self.root, check=True)
        build_data.update(infer_tag=True, pure_python=False)
        build_data["force_include"].update({str(path): str(path.relative_to(self.root)) for path in self._extensions()})

    @property
    def _modules(self) -> list[str]:
        return list(self.config["modules"])

    def _extensions(self) -> list[Path]:
        root = Path(self.root)
        beside = [path for module in self._modules for path in root.glob(f"{module.removesuffix('.py')}.*.so")]
        return [*beside, *root.glob(f"{_SHARED}__mypyc.*.so")]
